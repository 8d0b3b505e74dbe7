"""Strengths from compared pairs, against numbers worked by hand and true ones."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest

from tutelage.evaluation import bradley_terry
from tutelage.evaluation.bradley_terry import ELO, Game, strengths


def test_two_versions_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bradley_terry, "_PULL", 1e-9)
    games = [Game("a", "b", 1.0, n) for n in range(30)] + [Game("a", "b", 0.0, n) for n in range(30, 40)]
    best, worst = strengths(games)
    assert (best.version, best.wins, best.losses) == ("a", 30, 10)
    # Odds of 3 to 1: a difference of log 3.
    assert best.points - worst.points == pytest.approx(ELO * math.log(3), rel=1e-4)
    assert best.low < best.points < best.high


def test_ties_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bradley_terry, "_PULL", 1e-9)
    games = [Game("a", "b", score, n) for n, score in enumerate([1.0] * 8 + [0.5] * 8 + [0.0] * 2)]
    best, worst = strengths(games)
    # Davidson: the odds of a win are those of the won games alone, 8 to 2.
    assert best.points - worst.points == pytest.approx(ELO * math.log(4), rel=1e-4)
    assert (best.ties, worst.ties) == (8, 8)


def test_true_strengths_are_found_within_their_intervals() -> None:
    rng = random.Random(0)
    true = {"v1": -100.0, "v2": 0.0, "v3": 100.0}
    games = []
    for number in range(1500):
        first, second = rng.sample(sorted(true), 2)
        won = rng.random() < 1 / (1 + 10 ** ((true[second] - true[first]) / 400))
        games.append(Game(first, second, float(won), number // 3))
    table = strengths(games)
    assert [each.version for each in table] == ["v3", "v2", "v1"]
    for each in table:
        assert each.low < true[each.version] < each.high
        assert each.high - each.low < 60


def test_who_never_lost_has_a_finite_place_and_who_never_played_none() -> None:
    table = strengths([Game("a", "b", 1.0, 0), Game("a", "a", 1.0, 1)])
    assert [each.version for each in table] == ["a", "b"]
    assert all(math.isfinite(each.points) for each in table)
    assert strengths([]) == []


def test_numbers_of_games_a_million_times_apart() -> None:
    """Whole steps of Newton's method pass the summit here, and end in no number."""
    wins = np.array([[0.0, 0, 0], [10, 0, 0], [0, 1e7, 0]])
    ties = np.array([[0.0, 100, 0], [100, 0, 0], [0, 0, 0]])
    first, second, third = bradley_terry._fit(wins, ties)
    assert first < second < third


@pytest.mark.parametrize(("wins", "points"), [(1, 260), (30, 510), (100_000, 1150)])
def test_the_pull_to_equal_strengths_gives_way_to_games(wins: int, points: int) -> None:
    table = strengths([Game("a", "b", 1.0, n % 50) for n in range(wins)])
    assert [round(each.points, -1) for each in table] == [points, -points]
