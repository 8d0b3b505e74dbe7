"""How often scores agree with people: accuracy over judged pairs, with a bootstrap over prompts."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from tutelage.datasets.preference import PreferenceExample

_RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Share of pairs put right (an equal score counts half), with its 95 % interval; None without any pair."""

    value: float | None
    low: float | None
    high: float | None
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "pairs": self.pairs}


def pair_accuracy(
    examples: Sequence[PreferenceExample],
    scores: Sequence[Tensor],
    *,
    seed: int,
    source: str | None = None,
    gap: int | None = None,
) -> Accuracy:
    """Accuracy over all pairs that are no ties, optionally of one source or one rank gap.

    The interval resamples roots, not pairs: pairs of one prompt are not independent.
    """
    by_root: dict[str, list[float]] = defaultdict(list)
    for example, each in zip(examples, scores, strict=True):
        if source is None or example.source == source:
            for pair in example.preferences:
                if not pair.tie and gap in (None, pair.gap):
                    by_root[example.root].append(_right(float(each[pair.better] - each[pair.worse])))
    groups = [(sum(rights), len(rights)) for rights in by_root.values()]
    if not groups:
        return Accuracy(None, None, None, 0)
    low, high = bootstrap_ratio(groups, seed=seed)
    pairs = sum(count for _, count in groups)
    return Accuracy(sum(total for total, _ in groups) / pairs, low, high, pairs)


def bootstrap_ratio(groups: Sequence[tuple[float, int]], *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of sum / count over groups of (sum, count), resampling the groups."""
    generator = random.Random(seed)
    ratios = []
    for _ in range(_RESAMPLES):
        drawn = generator.choices(groups, k=len(groups))
        ratios.append(sum(total for total, _ in drawn) / sum(count for _, count in drawn))
    ratios.sort()
    return ratios[int(0.025 * _RESAMPLES)], ratios[int(0.975 * _RESAMPLES) - 1]


def _right(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)
