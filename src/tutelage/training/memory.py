"""How a training process uses memory."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tutelage.errors import Sentence, TrainingError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # glibc's malloc.h
_GROWTH = 64 << 20


def keep_freed_memory() -> None:
    """Let the allocator of this process keep what it frees, instead of giving it back and asking again.

    A training step frees and asks for the same large tensors all the time, and every page that comes fresh from the
    system costs a fault. Only glibc is told; elsewhere nothing happens.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_MAX, 0)
        mallopt(_TRIM_THRESHOLD, -1)
        mallopt(_TOP_PAD, _GROWTH)


@contextmanager
def its_end_told() -> Iterator[None]:
    """Raises TrainingError, with a way out, when a device's memory is not enough for what is done inside the block."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            Sentence("the device's memory ran out: {error}", error=str(error).partition("\n")[0][:200]),
            hint="begin anew with a lower micro_tokens, which changes memory and time, not what is learnt;"
            " or free what others hold there and go on with --resume",
        ) from error
