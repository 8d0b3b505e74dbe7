"""Held-out data, chosen by author where that can be, and by the text of a dialogue's first user message always.

Everything that grew from one message falls on one side, whichever file it came from: the same root appears in
several public sets, and a split by row would put its siblings on both sides. Rows of one group (see
`tutelage.store.export.groups`) fall on one side together.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal, TypeVar

from tutelage.dialogue import Comparison, Dialogue, root_of, split_key

T = TypeVar("T", Dialogue, Comparison)
Half = Literal["all", "first", "second"]


def is_held_out(row: Dialogue | Comparison, share: float) -> bool:
    """Whether a row is held out with its group or its root. `share` is the part of all of these, 0 to 1."""
    return int.from_bytes(_digest(row)[:8]) < share * 2**64


def in_half(row: Dialogue | Comparison, half: Half) -> bool:
    """Whether a row is in a half of all groups and roots; each half has its own held-out part."""
    return half == "all" or (_digest(row)[8] < 128) == (half == "first")


def split(rows: Iterable[T], share: float) -> tuple[list[T], list[T]]:
    """(training rows, held-out rows)."""
    train: list[T] = []
    held_out: list[T] = []
    for row in rows:
        (held_out if is_held_out(row, share) else train).append(row)
    return train, held_out


def in_two(rows: Sequence[T]) -> tuple[list[T], list[T]]:
    """Held-out rows in two parts that share no group and no root, with as many roots, or one more in the second.

    The roots' own order decides: a row that comes or goes moves one other root at most.
    """
    order = sorted({_digest(row)[9:] for row in rows})
    lower = set(order[: len(order) // 2])
    first = [row for row in rows if _digest(row)[9:] in lower]
    return first, [row for row in rows if _digest(row)[9:] not in lower]


def _digest(row: Dialogue | Comparison) -> bytes:
    return bytes.fromhex(row.group or split_key(root_of(row)))
