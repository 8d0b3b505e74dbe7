"""Batches: every example once an epoch, never over budget, always the same for a seed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tutelage.datasets.batching import epoch_batches, fill

lengths_of = st.lists(st.integers(1, 300), min_size=1, max_size=200)


@given(lengths_of, st.integers(1, 500), st.integers(0, 5), st.integers(0, 5))
def test_every_example_once_and_within_budget(lengths: list[int], budget: int, seed: int, epoch: int) -> None:
    batches = epoch_batches(lengths, budget, seed=seed, epoch=epoch)
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert all(len(batch) == 1 or sum(lengths[index] for index in batch) <= budget for batch in batches)
    assert batches == epoch_batches(lengths, budget, seed=seed, epoch=epoch)


def test_epochs_and_seeds_differ() -> None:
    lengths = list(range(1, 101))
    first = epoch_batches(lengths, 300, seed=0, epoch=0)
    assert first != epoch_batches(lengths, 300, seed=0, epoch=1)
    assert first != epoch_batches(lengths, 300, seed=1, epoch=0)
    assert sorted(first) != sorted(epoch_batches(lengths, 300, seed=0, epoch=1)), "others stand together"


def test_long_batches_come_among_short_ones() -> None:
    longest = [max(batch) for batch in epoch_batches(list(range(1, 61)), 120, seed=0, epoch=0)]
    assert longest != sorted(longest)


@given(lengths_of, st.integers(1, 500))
def test_fill_keeps_the_order(lengths: list[int], budget: int) -> None:
    order = list(range(len(lengths)))
    assert [index for group in fill(order, lengths, budget) for index in group] == order


def test_fill_leaves_no_room_that_would_do() -> None:
    assert list(fill([0, 1, 2, 3, 4], [5, 5, 4, 6, 11], 10)) == [[0, 1], [2, 3], [4]]
