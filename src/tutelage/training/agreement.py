"""How scores agree with people: accuracy over judged pairs with a bootstrap over prompts, margins, rank correlation."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
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

    scores: one tensor (completions,) for each example. The interval resamples roots, not pairs: pairs of one
    prompt are not independent.
    """
    by_root: dict[str, list[float]] = defaultdict(list)
    for example, each in zip(examples, scores, strict=True):
        if source is None or example.source == source:
            values = each.tolist()
            for pair in example.preferences:
                if not pair.tie and gap in (None, pair.gap):
                    by_root[example.root].append(_right(values[pair.better] - values[pair.worse]))
    groups = [(sum(rights), len(rights)) for rights in by_root.values()]
    if not groups:
        return Accuracy(None, None, None, 0)
    low, high = bootstrap_ratio(groups, seed=seed)
    pairs = sum(count for _, count in groups)
    return Accuracy(sum(total for total, _ in groups) / pairs, low, high, pairs)


def margins(examples: Sequence[PreferenceExample], scores: Sequence[Tensor]) -> Tensor:
    """Score of the better less that of the worse, of every pair that is no tie.

    scores: (completions, …) for each example -> (pairs, …).
    """
    rows = [
        each[[pair.better for pair in judged]] - each[[pair.worse for pair in judged]]
        for example, each in zip(examples, scores, strict=True)
        if (judged := [pair for pair in example.preferences if not pair.tie])
    ]
    return torch.cat(rows) if rows else torch.zeros(0)


def bootstrap_ratio(groups: Sequence[tuple[float, int]], *, seed: int) -> tuple[float, float]:
    """95 % percentile interval of sum / count over groups of (sum, count), resampling the groups."""
    generator = torch.Generator().manual_seed(seed)
    table = torch.tensor(groups, dtype=torch.float64)
    ratios = torch.empty(_RESAMPLES, dtype=torch.float64)
    for index in range(_RESAMPLES):
        total, count = table[torch.randint(len(table), (len(table),), generator=generator)].sum(dim=0)
        ratios[index] = total / count
    low, high = ratios.sort().values[[int(0.025 * _RESAMPLES), int(0.975 * _RESAMPLES) - 1]].tolist()
    return low, high


def rank_correlation(first: Tensor, second: Tensor) -> float | None:
    """Spearman's correlation of two rows of numbers, ties sharing their mean rank; None when one does not vary."""
    ranks = torch.stack([_ranks(first), _ranks(second)])
    centred = ranks - ranks.mean(dim=1, keepdim=True)
    size = centred.norm(dim=1).prod()
    return float(centred.prod(dim=0).sum() / size) if size > 0 else None


def _ranks(values: Tensor) -> Tensor:
    """From 1 on; equal values share the mean of their ranks."""
    ordered = values.sort().values
    below = torch.searchsorted(ordered, values, right=False)
    not_above = torch.searchsorted(ordered, values, right=True)
    return (below + not_above + 1).double() / 2


def _right(margin: float) -> float:
    return 0.5 if margin == 0 else float(margin > 0)
