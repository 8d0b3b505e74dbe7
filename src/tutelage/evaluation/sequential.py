"""A test of two versions that may be looked at after every rating, and stopped whenever it is clear.

Conversations are paired in the order in which they were rated, one of each version. Pairs with the same verdict say
nothing; of the others, the better version wins more than half. The evidence against "both are as good" is the
likelihood of what was seen under a spread of win rates, over its likelihood under one half. Without a difference it
is a martingale, so the chance that it ever reaches 1/alpha is at most alpha (Ville's inequality), however often one
looks. Exact for any number of ratings; what the larger group has beyond the smaller is not used.

Source: Robbins 1970, Statistical methods related to the law of the iterated logarithm (mixture martingales).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import exp, lgamma, log
from typing import Any

ALPHA = 0.05
# The spread of win rates that is looked for: Beta(8, 8), most of it between 27 % and 73 %.
_SPREAD = 8.0


@dataclass(frozen=True, slots=True)
class Sequential:
    """What is known so far. `wins` of `decided` pairs went to the treatment; `low` and `high` hold its true win rate.

    evidence: at least 1 / ALPHA decides. The interval is valid at every moment, too.
    """

    wins: int
    decided: int
    evidence: float
    low: float
    high: float

    @property
    def winner(self) -> str | None:
        """`treatment` or `control`, once it is clear."""
        if self.evidence < 1 / ALPHA:
            return None
        return "treatment" if self.wins * 2 > self.decided else "control"

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "wins": self.wins,
            "decided": self.decided,
            "evidence": self.evidence,
            "low": self.low,
            "high": self.high,
            "winner": self.winner,
        }


def sequential_test(observations: Iterable[tuple[str, bool]]) -> Sequential:
    """Observations in order: (`control` or `treatment`, whether its reader was content).

    Once the evidence is enough it counts as enough: what comes later is not looked at.
    """
    waiting: dict[str, list[bool]] = {"control": [], "treatment": []}
    wins = decided = 0
    evidence = 1.0
    for arm, content in observations:
        other = waiting["treatment" if arm == "control" else "control"]
        if not other:
            waiting[arm].append(content)
            continue
        mine, theirs = (content, other.pop(0)) if arm == "treatment" else (other.pop(0), content)
        if mine != theirs:
            decided += 1
            wins += mine
            evidence = exp(_log_evidence(wins, decided, 0.5))
            if evidence >= 1 / ALPHA:
                break
    return Sequential(wins, decided, evidence, *_interval(wins, decided))


def _log_evidence(wins: int, decided: int, rate: float) -> float:
    """Of the spread against one win rate."""
    losses = decided - wins
    mixed = _log_beta(wins + _SPREAD, losses + _SPREAD) - _log_beta(_SPREAD, _SPREAD)
    return mixed - wins * log(rate) - losses * log(1 - rate)


def _interval(wins: int, decided: int) -> tuple[float, float]:
    """All win rates against which the evidence is below 1 / ALPHA."""
    if not decided:
        return 0.0, 1.0
    centre = min(max(wins / decided, 1e-6), 1 - 1e-6)
    return _edge(wins, decided, centre, 1e-9), _edge(wins, decided, centre, 1 - 1e-9)


def _edge(wins: int, decided: int, inside: float, outside: float) -> float:
    limit = log(1 / ALPHA)
    if _log_evidence(wins, decided, outside) < limit:
        return round(outside)
    for _ in range(60):
        middle = (inside + outside) / 2
        if _log_evidence(wins, decided, middle) < limit:
            inside = middle
        else:
            outside = middle
    return inside


def _log_beta(a: float, b: float) -> float:
    return lgamma(a) + lgamma(b) - lgamma(a + b)
