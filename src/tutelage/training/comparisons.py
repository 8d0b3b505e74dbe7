"""Comparisons on their way into training: chosen, split, rendered, laid out in steps, for reward model and DPO."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field

from tutelage.config import Seed, Settings
from tutelage.datasets.batching import epoch_batches, fill
from tutelage.datasets.preference import PreferenceExample, Ties, render_comparisons
from tutelage.datasets.splits import Half, in_half, split
from tutelage.dialogue import Comparison
from tutelage.errors import DataError, Sentence
from tutelage.rendering import Renderer


class ComparisonSettings(Settings):
    """What every recipe on comparisons sets.

    `limits` caps the comparisons taken from a source; empty takes everything. `half` takes one half of all prompts:
    a model of the other half never saw them. `max_steps` is that of one pass of training.
    """

    model: str = "builtin"
    limits: dict[str, int] = Field(default_factory=dict)
    half: Half = "all"
    ties: Ties = "soft"
    max_tokens: int = Field(default=1024, ge=16)
    held_out: float = Field(default=0.15, ge=0, lt=1)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=8192, ge=16)
    micro_tokens: int = Field(default=2048, ge=16)
    warmup_steps: int = Field(default=5, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=20, ge=1)
    seed: Seed = 0

    @property
    def longest(self) -> dict[str, int]:
        """How many tokens a sequence may have, by the setting that says so."""
        return {"max_tokens": self.max_tokens}


@dataclass(frozen=True, slots=True)
class ComparisonData:
    """Rendered comparisons on both sides of the split, and the batches of every step of every member."""

    train: list[PreferenceExample]
    held_out: list[PreferenceExample]
    left_out: Counter[str]
    steps: list[list[list[int]]]

    @property
    def total(self) -> int:
        """Steps of all members."""
        return self.before(len(self.steps))

    def before(self, member: int) -> int:
        """Steps of the members before this one."""
        return sum(map(len, self.steps[:member]))

    def summary(self) -> dict[str, Any]:
        """What would be trained on, in numbers."""
        return {
            "comparisons": len(self.train),
            "pairs": sum(len(example.preferences) for example in self.train),
            "ties": sum(pair.tie for example in self.train for pair in example.preferences),
            "held_out_comparisons": len(self.held_out),
            "authors_on_both_sides": len(_authors(self.train) & _authors(self.held_out)),
            "tokens": sum(example.tokens for example in self.train),
            "left_out": {reason: count for reason, count in sorted(self.left_out.items()) if count},
            "steps": self.total,
        }


def _authors(examples: Sequence[PreferenceExample]) -> set[str]:
    return {example.author for example in examples if example.author}


def prepare(
    config: ComparisonSettings,
    comparisons: Sequence[Comparison],
    renderer: Renderer,
    *,
    orders: Sequence[int],
) -> ComparisonData:
    """Split by author and first user message, render, and lay out the steps: once for each of the seeds in `orders`.

    Nobody learns from those who guess, and nobody is judged by them. Raises DataError when nothing is left.
    """
    rows = [each for each in comparisons if in_half(each, config.half)]
    trusted = [each for each in rows if each.weight > 0]
    train, held_out = (
        render_comparisons(side, renderer, max_tokens=config.max_tokens, ties=config.ties)
        for side in split(_limited(trusted, config.limits), config.held_out)
    )
    left_out = train.left_out + held_out.left_out + Counter(guessed=len(rows) - len(trusted))
    if not any(not pair.tie for example in train.rendered for pair in example.preferences):
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(left_out.items())) or "none"
        problem = Sentence("nothing but ties") if train.rendered else Sentence("no comparison")
        raise DataError(
            Sentence(
                "{problem} to learn from among {all} comparisons of at most {max_tokens} tokens"
                " (left out: {reasons})",
                problem=problem,
                all=len(rows),
                max_tokens=config.max_tokens,
                reasons=reasons,
            ),
            hint="import some (`tutelage import hh FILE`), rank some at /rank, or raise max_tokens",
        )
    lengths = [example.tokens for example in train.rendered]
    steps = [
        [
            batch
            for epoch in range(config.epochs)
            for batch in epoch_batches(lengths, config.batch_tokens, seed=order, epoch=epoch)
        ]
        for order in orders
    ]
    return ComparisonData(
        train.rendered, held_out.rendered, left_out, [each[: config.max_steps] for each in steps]
    )


def _limited(comparisons: Sequence[Comparison], limits: dict[str, int]) -> list[Comparison]:
    left = dict(limits)
    chosen = []
    for comparison in comparisons:
        if left.get(comparison.source, 1) > 0:
            chosen.append(comparison)
            if comparison.source in left:
                left[comparison.source] -= 1
    return chosen


def micro_batches(examples: Sequence[PreferenceExample], micro_tokens: int) -> list[list[PreferenceExample]]:
    """Cut comparisons into groups of at most `micro_tokens` tokens."""
    lengths = [example.tokens for example in examples]
    return [
        [examples[index] for index in group] for group in fill(range(len(examples)), lengths, micro_tokens)
    ]
