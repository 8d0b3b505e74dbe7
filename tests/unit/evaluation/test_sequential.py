"""The test of two versions: exact where it can be computed by hand, and never fooled by looking often."""

from __future__ import annotations

import random

import pytest

from tutelage.evaluation.sequential import ALPHA, sequential_test


def stream(rng: random.Random, count: int, *, control: float, treatment: float) -> list[tuple[str, bool]]:
    found = []
    for _ in range(count):
        arm = rng.choice(["control", "treatment"])
        found.append((arm, rng.random() < (treatment if arm == "treatment" else control)))
    return found


def test_pairs_are_made_in_order_and_equal_ones_say_nothing() -> None:
    seen = [
        ("control", True),
        ("control", False),
        ("treatment", True),
        ("treatment", True),
        ("treatment", False),
    ]
    found = sequential_test(seen)
    assert (found.wins, found.decided) == (1, 1)
    assert found.evidence == pytest.approx(1.0)  # one decided pair cannot tell
    assert 0 < found.low < 0.05
    assert found.high == 1.0


def test_evidence_by_hand() -> None:
    seen = [("control", False), ("treatment", True)] * 2
    # Beta(10, 8) over Beta(8, 8), times 2^2: (8 * 9) / (16 * 17) * 4.
    assert sequential_test(seen).evidence == pytest.approx(8 * 9 / (16 * 17) * 4)


def test_the_first_moment_that_decides_stays_whatever_comes_later() -> None:
    won, lost = [[("control", not better), ("treatment", better)] for better in (True, False)]
    found = sequential_test(won * 1200)
    assert found.winner == "treatment"
    assert found.wins == found.decided < 20
    assert sequential_test(won * (found.decided - 1)).winner is None
    assert sequential_test(won * found.decided + lost * 40) == found


def test_without_a_difference_looking_always_decides_in_at_most_one_of_twenty() -> None:
    rng = random.Random(3)
    decided = sum(
        sequential_test(stream(rng, 600, control=0.6, treatment=0.6)).winner is not None for _ in range(400)
    )
    assert decided <= 400 * ALPHA


def test_a_clear_difference_is_found_and_named() -> None:
    rng = random.Random(4)
    better = [sequential_test(stream(rng, 600, control=0.5, treatment=0.75)).winner for _ in range(40)]
    worse = [sequential_test(stream(rng, 600, control=0.75, treatment=0.5)).winner for _ in range(40)]
    assert better.count("treatment") >= 38
    assert worse.count("control") >= 38


def test_the_interval_holds_the_rate_it_was_drawn_from() -> None:
    rng = random.Random(5)
    missed = 0
    for _ in range(200):
        seen = [
            pair
            for won in (rng.random() < 0.6 for _ in range(150))
            for pair in (("control", not won), ("treatment", won))
        ]
        found = sequential_test(seen)
        missed += not found.low <= 0.6 <= found.high
    assert missed <= 10


def test_nothing_seen_is_nothing_known() -> None:
    found = sequential_test([])
    assert (found.winner, found.low, found.high) == (None, 0.0, 1.0)
