"""The interval of a rise, against published and exact numbers."""

from __future__ import annotations

import random

import pytest

from tutelage.evaluation import paired
from tutelage.evaluation.paired import rise


def test_the_published_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tango 1998: of 44 pairs one has changed; at 95 % the upper end is 0.118."""
    monkeypatch.setattr(paired, "_SURE", 1.96)
    assert rise(0, 1, 44)[1] == pytest.approx(0.118, abs=5e-4)


@pytest.mark.parametrize("count", [1, 30, 48, 500])
def test_where_nothing_changed_it_has_a_width_in_closed_form(count: int) -> None:
    square = paired._SURE**2
    low, high = rise(0, 0, count)
    assert high == -low == pytest.approx(square / (count + square))


def test_gone_and_come_are_mirrored_and_the_ends_lie_within_what_is_possible() -> None:
    for gone, come, count in ((3, 1, 20), (0, 20, 20), (20, 0, 20), (10, 10, 20)):
        low, high = rise(gone, come, count)
        assert (-high, -low) == rise(come, gone, count)
        assert -1 <= low <= (come - gone) / count <= high <= 1


@pytest.mark.parametrize(("before", "after"), [(0.02, 0.12), (0.05, 0.15), (0.1, 0.2)])
def test_a_true_rise_lies_above_the_interval_in_about_one_case_of_twenty(before: float, after: float) -> None:
    draw = random.Random(0)
    missed = 0
    for _ in range(2000):
        pairs = [(draw.random() < before, draw.random() < after) for _ in range(48)]
        gone, come = pairs.count((True, False)), pairs.count((False, True))
        missed += rise(gone, come, 48)[1] < after - before
    assert 0.02 < missed / 2000 < 0.07
