"""What a reward model is worth on comparisons that it has not seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tutelage.datasets.preference import PreferenceExample
from tutelage.training.agreement import margins, pair_accuracy, rank_correlation
from tutelage.training.calibration import fit_temperature, reliability


@dataclass(frozen=True, slots=True)
class Judged:
    """Comparisons and every member's scores of their candidates, a tensor (completions, members) for each."""

    examples: Sequence[PreferenceExample]
    scores: Sequence[Tensor]

    @property
    def rewards(self) -> list[Tensor]:
        """The mean over members: (completions,) for each comparison."""
        return [each.mean(dim=1) for each in self.scores]


def report(held_out: Judged, train: Sequence[PreferenceExample], *, seed: int) -> dict[str, Any]:
    """Accuracy over all pairs, whole and in parts, beside two rules about length; calibration; disagreement.

    `train` teaches the majority rule alone: whether the longer or the shorter mostly won, source by source; and it says
    whose judgements are new. All held-out prompts are.
    """
    examples, rewards = held_out.examples, held_out.rewards
    lengths = [_lengths(example) for example in examples]
    signs = _length_rule(train)
    ruled = [signs[example.source] * each for example, each in zip(examples, lengths, strict=True)]

    def accuracy(of: Sequence[Tensor], source: str | None = None, gap: int | None = None) -> dict[str, Any]:
        return pair_accuracy(examples, of, seed=seed, source=source, gap=gap).as_dict()

    known = {example.author for example in train}
    new = [index for index, example in enumerate(examples) if example.author and example.author not in known]
    members = held_out.scores[0].shape[1] if held_out.scores else 0
    gaps = sorted({pair.gap for example in examples for pair in example.preferences if not pair.tie})
    sources = sorted({example.source for example in examples})
    return {
        "held_out_accuracy": accuracy(rewards),
        "new_author_accuracy": pair_accuracy(
            [examples[index] for index in new], [rewards[index] for index in new], seed=seed
        ).as_dict(),
        "member_accuracy": [accuracy([each[:, i] for each in held_out.scores]) for i in range(members)],
        "length_baseline": accuracy(lengths),
        "majority_baseline": accuracy(ruled),
        "by_source": {source: accuracy(rewards, source=source) for source in sources},
        "by_rank_gap": {str(gap): accuracy(rewards, gap=gap) for gap in gaps},
        "calibration": calibration(held_out),
        "length_correlation": rank_correlation(torch.cat(rewards), torch.cat(lengths)) if rewards else None,
        "disagreement": disagreement(held_out),
    }


def calibration(held_out: Judged) -> dict[str, Any]:
    """The temperature that fits all held-out pairs, and the calibration error without it and with it.

    The error with it is honest: the pairs of every other comparison are judged with the temperature of the rest.
    """
    temperature = fit_temperature(margins(held_out.examples, held_out.rewards))
    before = reliability(margins(held_out.examples, held_out.rewards), 1.0)
    halves = [margins(held_out.examples[start::2], held_out.rewards[start::2]) for start in (0, 1)]
    scaled = [halves[0] / fit_temperature(halves[1]), halves[1] / fit_temperature(halves[0])]
    after = reliability(torch.cat(scaled), 1.0)
    return {
        "temperature": temperature,
        "error_before": before.error,
        "error": after.error,
        "log_loss_before": before.log_loss,
        "log_loss": after.log_loss,
        "bins": after.bins,
    }


def disagreement(held_out: Judged) -> dict[str, float | None]:
    """Members' deviation from each other, as a mean over candidates, and the share of pairs they do not agree on.

    None without any pair, or with one member, who never disagrees.
    """
    apart = margins(held_out.examples, held_out.scores)
    if not apart.numel() or apart.shape[1] < 2:
        return {"deviation": None, "split_pairs": None}
    deviation = torch.cat([each.std(dim=1, correction=0) for each in held_out.scores]).mean()
    better = (apart > 0).float().mean(dim=1)
    return {"deviation": float(deviation), "split_pairs": float(((better > 0) & (better < 1)).float().mean())}


def _lengths(example: PreferenceExample) -> Tensor:
    return torch.tensor([float(len(each)) for each in example.completions])


def _length_rule(train: Sequence[PreferenceExample]) -> dict[str, int]:
    """+1 for each source whose longer candidates mostly won, else -1."""
    longer: Counter[str] = Counter()
    for example in train:
        gaps = margins([example], [_lengths(example)])
        longer[example.source] += int(gaps.sign().sum())
    return Counter({source: 1 if count >= 0 else -1 for source, count in longer.items()})
