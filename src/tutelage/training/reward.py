"""The reward model: a scalar for a completion, learnt from all judged pairs of each prompt.

One prompt and its K completions are one tree of the batch: the prompt is computed once, each completion once,
and all C(K, 2) pairs are taken among the K scores, so no prompt is overfitted pair by pair. The adapter starts
from the SFT model's; the score is read at the end token. One epoch. In the end the head is shifted and scaled so
that held-out candidates score with mean 0 and deviation 1. Left out: an ensemble of seeds.

Sources: Ouyang et al. 2022 (2203.02155), section 3.5; Stiennon et al. 2020 (2009.01325).
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from tutelage.config import Settings
from tutelage.datasets.batching import epoch_batches, fill
from tutelage.datasets.preference import PreferenceExample, render_comparisons
from tutelage.datasets.splits import split
from tutelage.dialogue import Comparison
from tutelage.errors import DataError
from tutelage.models.adapters import AdapterShape, load_adapter
from tutelage.models.heads import ScalarHead
from tutelage.models.interface import CausalModel
from tutelage.models.loading import load_model
from tutelage.rendering import Renderer
from tutelage.training.agreement import pair_accuracy
from tutelage.training.checkpoints import (
    State,
    load_newest,
    pack_optimizer,
    prefixed,
    save,
    section,
    unpack_optimizer,
)
from tutelage.training.flat import TreeBatch, preference_trees
from tutelage.training.losses import preference_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import adamw, cosine, set_rate, update
from tutelage.training.reward_model import RewardModel, ValueModel, save_reward_model

ADAPTER = "reward"
UNIT_SAMPLE = 64  # comparisons that set the unit of the reward where none are held out


class RewardConfig(Settings):
    """Settings of reward training. `limits` caps the comparisons taken from a source; empty takes everything."""

    model: str = "builtin"
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    limits: dict[str, int] = Field(default_factory=dict)
    max_tokens: int = Field(default=1024, ge=16)
    held_out: float = Field(default=0.15, ge=0, lt=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=8192, ge=16)
    micro_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=20, ge=1)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class RewardData:
    """Rendered comparisons on both sides of the split, and the batches of every step."""

    train: list[PreferenceExample]
    held_out: list[PreferenceExample]
    left_out: int
    steps: list[list[int]]

    def summary(self) -> dict[str, Any]:
        """What would be trained on, in numbers."""
        return {
            "comparisons": len(self.train),
            "pairs": sum(len(example.preferences) for example in self.train),
            "ties": sum(pair.tie for example in self.train for pair in example.preferences),
            "held_out_comparisons": len(self.held_out),
            "tokens": sum(example.tokens for example in self.train),
            "left_out": self.left_out,
            "steps": len(self.steps),
        }


def prepare_reward(config: RewardConfig, comparisons: Sequence[Comparison], renderer: Renderer) -> RewardData:
    """Split by the first user message, render, and lay out the steps. Raises DataError when nothing is left."""
    train, held_out = split(_limited(comparisons, config.limits), config.held_out, lambda each: each.prompt)
    train_examples = render_comparisons(train, renderer, max_tokens=config.max_tokens)
    held_out_examples = render_comparisons(held_out, renderer, max_tokens=config.max_tokens)
    if not train_examples.rendered:
        raise DataError(
            f"no comparison of at most {config.max_tokens} tokens to learn from ({len(comparisons)} in all)",
            hint="import some (`tutelage import hh FILE`), rank some at /rank, or raise max_tokens",
        )
    lengths = [example.tokens for example in train_examples.rendered]
    steps = epoch_batches(lengths, config.batch_tokens, seed=config.seed, epoch=0)
    return RewardData(
        train_examples.rendered,
        held_out_examples.rendered,
        train_examples.left_out + held_out_examples.left_out,
        steps[: config.max_steps],
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


def train_reward(
    config: RewardConfig,
    comparisons: Sequence[Comparison],
    run: Run,
    home: Path,
    *,
    start: Path | None = None,
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train adapter and head and write the run's manifest, which is returned; a finished run returns at once.

    `start` is the SFT model's adapter. Raises DataError, ModelError or TrainingError.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home)
    model = loaded.model
    data = prepare_reward(config, comparisons, loaded.renderer)
    if start is None:
        model.add_adapter(ADAPTER, AdapterShape(config.rank, config.alpha), seed=config.seed)
    else:
        load_adapter(model, ADAPTER, start)
    head = ScalarHead(model.width, seed=config.seed).to(model.device)
    optimizer = adamw(
        [
            (model.adapter_parameters(ADAPTER), config.learning_rate),
            (head.parameters(), config.head_learning_rate),
        ]
    )
    total = len(data.steps)

    first = 0
    state = load_newest(run.folder)
    if state is not None:
        first = state.step
        model.set_adapter_tensors(ADAPTER, section("adapter", state.tensors))
        head.load_state_dict(section("head", state.tensors))
        unpack_optimizer(optimizer, section("optimizer", state.tensors))
    run.rewind(first)

    for step in range(first, total):
        set_rate(optimizer, cosine(step, total, warmup=config.warmup_steps))
        examples = [data.train[index] for index in data.steps[step]]
        loss, right = accumulate_gradients(model, head, examples, config.micro_tokens)
        norm = update(optimizer, loss, max_norm=config.max_norm, where=f"reward step {step}")
        metrics = {"loss": loss, "accuracy": right, "gradient_norm": norm}
        run.log(step, total, metrics | {"learning_rate": optimizer.param_groups[0]["lr"]})
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < total:
            tensors = prefixed("adapter", model.adapter_tensors(ADAPTER)) | prefixed(
                "head", head.state_dict()
            )
            save(run.folder, State(step + 1, tensors | prefixed("optimizer", pack_optimizer(optimizer))))

    unseen = data.held_out or data.train[:UNIT_SAMPLE]
    head.normalise(torch.cat(score_examples(model, head, unseen, config.micro_tokens)))
    scores = score_examples(model, head, data.held_out, config.micro_tokens)
    member = ValueModel(ADAPTER, head)
    save_reward_model(model, RewardModel((member,)), run.folder / "adapter", base=config.model)
    manifest = {
        "kind": "reward",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": {**report(data.held_out, scores, seed=config.seed), **data.summary()},
        **(lineage or {}),
    }
    run.finish(manifest)
    return manifest


def accumulate_gradients(
    model: CausalModel, head: ScalarHead, examples: Sequence[PreferenceExample], micro_tokens: int
) -> tuple[float, float]:
    """Add the gradient of the mean loss of the comparisons; returns that loss and the share of pairs put right."""
    loss = 0.0
    right: list[bool] = []
    for group in micro_batches(examples, micro_tokens):
        scores = tree_scores(model, head, preference_trees(group, model.device))
        pairs = zip(scores, group, strict=True)
        part = torch.stack(
            [preference_loss(each, example.preferences) for each, example in pairs]
        ).sum() / len(examples)
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        for each, example in zip(scores, group, strict=True):
            right += [
                bool(each[pair.better] > each[pair.worse]) for pair in example.preferences if not pair.tie
            ]
    return loss, statistics.fmean(right) if right else 0.5


def tree_scores(model: CausalModel, head: ScalarHead, batch: TreeBatch) -> tuple[Tensor, ...]:
    """The score of each completion, a tensor (completions,) for each prompt, with gradients when enabled."""
    with model.using(ADAPTER):
        hidden = model.hidden(batch.token_ids, batch.layout)
    scores: tuple[Tensor, ...] = head(hidden[batch.ends]).split(batch.counts)
    return scores


@torch.inference_mode()
def score_examples(
    model: CausalModel, head: ScalarHead, examples: Sequence[PreferenceExample], micro_tokens: int
) -> list[Tensor]:
    """Scores of every comparison's completions, on the CPU."""
    scores: list[Tensor] = []
    for group in micro_batches(examples, micro_tokens):
        scores += [each.cpu() for each in tree_scores(model, head, preference_trees(group, model.device))]
    return scores


def micro_batches(examples: Sequence[PreferenceExample], micro_tokens: int) -> list[list[PreferenceExample]]:
    """Cut comparisons into groups of at most `micro_tokens` tokens."""
    lengths = [example.tokens for example in examples]
    return [
        [examples[index] for index in group] for group in fill(range(len(examples)), lengths, micro_tokens)
    ]


def report(examples: Sequence[PreferenceExample], scores: Sequence[Tensor], *, seed: int) -> dict[str, Any]:
    """Held-out accuracy over all pairs with its interval, by source and rank gap, beside the longer-is-better rule."""

    def accuracy(of: Sequence[Tensor], source: str | None = None, gap: int | None = None) -> dict[str, Any]:
        return pair_accuracy(examples, of, seed=seed, source=source, gap=gap).as_dict()

    lengths = [torch.tensor([float(len(each)) for each in example.completions]) for example in examples]
    gaps = sorted({pair.gap for example in examples for pair in example.preferences if not pair.tie})
    return {
        "held_out_accuracy": accuracy(scores),
        "length_baseline": accuracy(lengths),
        "by_source": {
            source: accuracy(scores, source=source) for source in sorted({e.source for e in examples})
        },
        "by_rank_gap": {str(gap): accuracy(scores, gap=gap) for gap in gaps},
    }
