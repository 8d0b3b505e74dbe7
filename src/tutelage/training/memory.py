"""How a training process uses memory."""

from __future__ import annotations

import ctypes
import sys

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
