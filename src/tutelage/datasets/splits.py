"""Held-out data, chosen by the text of a dialogue's first user message.

Everything that grew from one message falls on one side, whichever file it came from: the same root appears in
several public sets, and a split by row would put its siblings on both sides.
"""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

from tutelage.dialogue import Message

T = TypeVar("T")
Half = Literal["all", "first", "second"]


def is_held_out(messages: Sequence[Message], share: float) -> bool:
    """Whether the dialogue that begins like this is held out. `share` is the part of all roots, 0 to 1."""
    return int.from_bytes(_digest(messages)[:8]) < share * 2**64


def in_half(messages: Sequence[Message], half: Half) -> bool:
    """Whether the dialogue that begins like this is in a half of all roots; each half has its own held-out part."""
    return half == "all" or (_digest(messages)[8] < 128) == (half == "first")


def _digest(messages: Sequence[Message]) -> bytes:
    root = next((message.content for message in messages if message.role == "user"), "")
    plain = " ".join(unicodedata.normalize("NFKC", root).casefold().split())
    return hashlib.sha256(plain.encode("utf-8", "replace")).digest()


def split(
    rows: Iterable[T], share: float, messages: Callable[[T], Sequence[Message]]
) -> tuple[list[T], list[T]]:
    """(training rows, held-out rows); `messages` gives a row's dialogue."""
    train: list[T] = []
    held_out: list[T] = []
    for row in rows:
        (held_out if is_held_out(messages(row), share) else train).append(row)
    return train, held_out
