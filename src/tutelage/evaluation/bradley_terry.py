"""How good versions are, from pairs of their answers that people compared: strengths with ties and intervals.

A version wins a pair with odds that grow with the difference of two strengths, and ties have a weight of their own.
Strengths are in Elo points (400 points are odds of ten to one) around a mean of 0. Intervals resample groups (a
ranking, a conversation), because pairs of one group are not independent.

Source: Davidson 1970, On extending the Bradley–Terry model to accommodate ties.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import log
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray

ELO = 400 / log(10)
RESAMPLES = 200
# A weak pull towards equal strengths keeps a version that has never lost at a finite place.
_PULL = 0.05


@dataclass(frozen=True, slots=True)
class Game:
    """One compared pair of answers. `score` is 1 when the first was better, 0.5 in a tie, 0 otherwise."""

    first: str
    second: str
    score: float
    group: Hashable


@dataclass(frozen=True, slots=True)
class Strength:
    """One version: Elo points with their 95 % interval, and how its pairs went."""

    version: str
    points: float
    low: float
    high: float
    wins: int
    ties: int
    losses: int


def strengths(games: Iterable[Game], *, seed: int = 0) -> list[Strength]:
    """The strongest first; versions that were never compared with another are not in it."""
    import numpy as np

    kept = [game for game in games if game.first != game.second]
    if not kept:
        return []
    names = sorted({name for game in kept for name in (game.first, game.second)})
    wins, ties = _tables(kept, names)
    points = _fit(wins.sum(axis=0), ties.sum(axis=0)) * ELO
    generator = np.random.default_rng(seed)
    count = len(wins)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES).astype(float)
    resampled = np.array(
        [
            _fit(won, tied) * ELO
            for won, tied in zip(
                np.tensordot(drawn, wins, axes=1), np.tensordot(drawn, ties, axes=1), strict=True
            )
        ]
    )
    low, high = np.quantile(resampled, [0.025, 0.975], axis=0)
    won, tied = wins.sum(axis=0), ties.sum(axis=0)
    table = [
        Strength(
            name,
            float(points[index]),
            float(low[index]),
            float(high[index]),
            int(won[index].sum()),
            int(tied[index].sum()),
            int(won[:, index].sum()),
        )
        for index, name in enumerate(names)
    ]
    return sorted(table, key=lambda each: -each.points)


def _tables(games: list[Game], names: list[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Wins (group, winner, loser) and ties (group, one, other), the latter both ways."""
    import numpy as np

    groups = {group: index for index, group in enumerate(dict.fromkeys(game.group for game in games))}
    place = {name: index for index, name in enumerate(names)}
    wins = np.zeros((len(groups), len(names), len(names)))
    ties = np.zeros_like(wins)
    for game in games:
        first, second, group = place[game.first], place[game.second], groups[game.group]
        if game.score == 0.5:
            ties[group, first, second] += 1
            ties[group, second, first] += 1
        else:
            better, worse = (first, second) if game.score > 0.5 else (second, first)
            wins[group, better, worse] += 1
    return wins, ties


def _fit(wins: NDArray[Any], ties: NDArray[Any]) -> NDArray[Any]:
    """Strengths in natural log-odds around 0, by Newton's method; the log weight of ties is the last parameter."""
    import numpy as np

    size = len(wins)
    games = wins + wins.T + ties
    scored = (wins + ties / 2).sum(axis=1)
    tied = ties.sum() / 2
    parameters = np.zeros(size + 1)
    for _ in range(50):
        strength, weight = parameters[:size], parameters[size]
        difference = np.subtract.outer(strength, strength)
        first, second = np.exp(difference / 2), np.exp(-difference / 2)
        total = first + second + np.exp(weight)
        win, tie = first / total, np.exp(weight) / total
        expected = win + tie / 2
        gradient = (
            np.append(scored - (games * expected).sum(axis=1), tied - (games * tie).sum() / 2)
            - _PULL * parameters
        )
        variance = games * (win + tie / 4 - expected**2)
        curvature = np.zeros((size + 1, size + 1))
        curvature[:size, :size] = np.diag(variance.sum(axis=1)) - variance
        mixed = (games * (tie / 2 - expected * tie)).sum(axis=1)
        curvature[:size, size] = curvature[size, :size] = mixed
        curvature[size, size] = (games * tie * (1 - tie)).sum() / 2
        step = np.linalg.solve(curvature + _PULL * np.eye(size + 1), gradient)
        parameters = parameters + np.clip(step, -2, 2)  # whole, it may pass the summit and not come back
        if np.abs(step).max() < 1e-9:
            break
    return np.asarray(parameters[:size] - parameters[:size].mean())
