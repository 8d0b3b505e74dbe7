"""Which examples stand together in a batch: counted in tokens, in an order that a seed decides."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

_WINDOW = 64


def epoch_batches(lengths: Sequence[int], budget: int, *, seed: int, epoch: int) -> list[list[int]]:
    """Indices of one epoch's examples, in batches of at most `budget` tokens (a longer example stands alone).

    Examples are shuffled, then sorted by length within windows, so that a batch holds similar lengths; the
    batches are shuffled again. The same seed and epoch always give the same batches.
    """
    generator = random.Random(f"{seed}/{epoch}")
    order = list(range(len(lengths)))
    generator.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), _WINDOW):
        window = sorted(order[start : start + _WINDOW], key=lambda index: lengths[index])
        batches += fill(window, lengths, budget)
    generator.shuffle(batches)
    return batches


def fill(order: Sequence[int], lengths: Sequence[int], budget: int) -> Iterator[list[int]]:
    """Cut `order` into consecutive groups of at most `budget` tokens each."""
    group: list[int] = []
    used = 0
    for index in order:
        if group and used + lengths[index] > budget:
            yield group
            group, used = [], 0
        group.append(index)
        used += lengths[index]
    if group:
        yield group
