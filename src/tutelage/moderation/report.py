"""How good a filter is: ranking per set and category, and what a policy does to harmful and to ordinary text."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from tutelage.moderation.categories import Category, Scores
from tutelage.moderation.classifier import Classifier
from tutelage.moderation.corpus import TRAINED, Example
from tutelage.moderation.policy import Policy, Side

_RESAMPLES = 200
_CHUNK = 256
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Operating:
    """What happens at one threshold. `precision` is NaN-free: None when nothing reaches the threshold."""

    threshold: float
    precision: float | None
    recall: float
    false_positive_rate: float


@dataclass(frozen=True, slots=True)
class Ranking:
    """How well one category is told apart in one set (or in all, `source` "all").

    `auprc` is the area under the precision-recall curve with a 95 % bootstrap interval; chance is
    `positives / texts`.
    """

    source: str
    category: Category
    texts: int
    positives: int
    auprc: float
    interval: Interval
    warn: Operating | None
    block: Operating | None


@dataclass(frozen=True, slots=True)
class Blocking:
    """How often ordinary text is warned about and blocked, with 95 % intervals (Wilson)."""

    source: str
    texts: int
    warned: float
    warned_interval: Interval
    blocked: float
    blocked_interval: Interval


@dataclass(frozen=True, slots=True)
class Report:
    """All figures of one filter under one policy, by the thresholds of one side."""

    policy_version: str
    side: Side
    rankings: tuple[Ranking, ...]
    ordinary: tuple[Blocking, ...]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


def evaluate(
    classifier: Classifier, examples: Sequence[Example], policy: Policy, *, side: Side = "input"
) -> Report:
    """Figures on the examples given, which should be ones the classifier was not trained on."""
    scores = scored(classifier, [example.text for example in examples])
    rankings = [
        ranking
        for source, rows in _by_source(examples).items()
        for category in TRAINED
        if (
            ranking := rank(
                source, category, [examples[r] for r in rows], [scores[r] for r in rows], policy, side
            )
        )
    ]
    ordinary = [row for row, example in enumerate(examples) if example.benign]
    blocking = [
        block_rate(source, [scores[ordinary[r]] for r in rows], policy, side)
        for source, rows in _by_source([examples[row] for row in ordinary]).items()
    ]
    return Report(policy.version, side, tuple(rankings), tuple(blocking))


def scored(classifier: Classifier, texts: Sequence[str]) -> list[Scores]:
    """The scores of many texts, a few hundred at a time."""
    chunks = (texts[start : start + _CHUNK] for start in range(0, len(texts), _CHUNK))
    return [scores for chunk in chunks for scores in classifier.score(chunk)]


def rank(
    source: str,
    category: Category,
    examples: Sequence[Example],
    scores: Sequence[Scores],
    policy: Policy,
    side: Side,
) -> Ranking | None:
    """Figures for one category, or None where the set does not hold both kinds of text."""
    known = [row for row, example in enumerate(examples) if category in example.labels]
    target = np.array([examples[row].labels[category] for row in known], dtype=bool)
    values = np.array([scores[row].get(category, 0.0) for row in known])
    if not target.any() or target.all():
        return None
    limits = policy.side(side).get(category)
    return Ranking(
        source,
        category,
        len(target),
        int(target.sum()),
        average_precision(target, values),
        bootstrap(target, values),
        operating(target, values, limits.warn) if limits else None,
        operating(target, values, limits.block) if limits and limits.block is not None else None,
    )


def operating(target: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], threshold: float) -> Operating:
    flagged = scores >= threshold
    hits = int((flagged & target).sum())
    return Operating(
        threshold,
        hits / int(flagged.sum()) if flagged.any() else None,
        hits / int(target.sum()),
        int((flagged & ~target).sum()) / int((~target).sum()),
    )


def average_precision(target: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64]) -> float:
    """Area under the precision-recall curve by steps: the sum of precision times gain in recall. Ties count as one."""
    order = np.argsort(-scores, kind="stable")
    hits = np.cumsum(target[order])
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    hits, taken = hits[last_of_tie], np.flatnonzero(last_of_tie) + 1
    gains = np.diff(hits, prepend=0)
    return float((gains * hits / taken).sum() / hits[-1])


def bootstrap(target: npt.NDArray[np.bool_], scores: npt.NDArray[np.float64], *, seed: int = 0) -> Interval:
    """95 % percentile interval of the average precision over resampled texts."""
    rng = np.random.default_rng(seed)
    values = []
    for _ in range(_RESAMPLES):
        chosen = rng.integers(0, len(target), len(target))
        if target[chosen].any():
            values.append(average_precision(target[chosen], scores[chosen]))
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)


def block_rate(source: str, scores: Sequence[Scores], policy: Policy, side: Side) -> Blocking:
    warned = sum(bool(policy.warned(each, side)) for each in scores)
    blocked = sum(bool(policy.blocked(each, side)) for each in scores)
    total = len(scores)
    return Blocking(
        source, total, warned / total, wilson(warned, total), blocked / total, wilson(blocked, total)
    )


def wilson(hits: int, total: int) -> Interval:
    """95 % interval of a proportion (Wilson 1927)."""
    z = 1.96
    share = hits / total
    centre = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def _by_source(examples: Sequence[Example]) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = defaultdict(list)
    for row, example in enumerate(examples):
        groups[example.source].append(row)
        groups["all"].append(row)
    return groups
