"""The reward model: a scalar for a completion, learnt from all judged pairs of each prompt.

Read it top to bottom. One prompt and its K completions are one tree of the batch: the prompt is computed once, each
completion once, and all C(K, 2) pairs are taken among the K scores, so no prompt is overfitted pair by pair. A
model has several members on one base, trained one after the other; each has its own adapter, head and order of the
data. An adapter starts from the SFT model's where there is one; the score is read at the end token. One epoch, and
less when the loss on held-out prompts stops falling. In the end the reward is shifted and scaled so that the SFT
model's own answers score with mean 0 and deviation 1, and a temperature turns its differences into probabilities.
Left out: dropout, weight decay, a margin by rank gap.

Sources: Ouyang et al. 2022 (2203.02155), section 3.5; Stiennon et al. 2020 (2009.01325); Coste et al. 2023
(2310.02743) for the ensemble.
"""

from __future__ import annotations

import random
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from tutelage.config import Settings
from tutelage.datasets.batching import epoch_batches, fill
from tutelage.datasets.preference import PreferenceExample, Ties, render_comparisons
from tutelage.datasets.splits import Half, in_half, split
from tutelage.dialogue import Comparison
from tutelage.errors import DataError
from tutelage.models.adapters import AdapterShape, load_adapter
from tutelage.models.heads import ScalarHead
from tutelage.models.interface import CausalModel
from tutelage.models.loading import load_model
from tutelage.rendering import Renderer
from tutelage.training.agreement import margins
from tutelage.training.checkpoints import (
    State,
    load_newest,
    pack_optimizer,
    prefixed,
    save,
    section,
    unpack_optimizer,
)
from tutelage.training.distributed import collect, share, sum_scalars, world
from tutelage.training.early_stop import Best
from tutelage.training.flat import preference_trees
from tutelage.training.losses import preference_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import adamw, cosine, set_rate, update
from tutelage.training.reward_model import (
    RewardModel,
    ValueModel,
    load_member,
    save_member,
    save_reward_model,
)
from tutelage.training.reward_report import Judged, report
from tutelage.training.reward_unit import candidates, in_unit, own_answers

ADAPTER = "reward"
TRAINED = "trained"  # folder of the members that are done, inside a run that is not
UNIT_SAMPLE = 64  # comparisons whose prompts set the unit of the reward
LOOK_SAMPLE = 128  # held-out comparisons of a look


class RewardConfig(Settings):
    """Settings of reward training.

    `limits` caps the comparisons taken from a source; empty takes everything. `half` takes one half of all prompts:
    a model of the other half never saw them. `max_steps` is a member's. `evaluate_every` counts steps between looks
    at held-out prompts; the last step always has one.
    """

    model: str = "builtin"
    members: int = Field(default=3, ge=1, le=100)
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    limits: dict[str, int] = Field(default_factory=dict)
    half: Half = "all"
    ties: Ties = "soft"
    max_tokens: int = Field(default=1024, ge=16)
    held_out: float = Field(default=0.15, ge=0, lt=1)
    epochs: int = Field(default=1, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    evaluate_every: int = Field(default=50, ge=1)
    batch_tokens: int = Field(default=8192, ge=16)
    micro_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    answer_tokens: int = Field(default=96, ge=1)
    checkpoint_every: int = Field(default=20, ge=1)
    seed: int = 0

    def member_seed(self, member: int) -> int:
        """What decides a member's adapter, head and order of the data."""
        return self.seed * 101 + member


@dataclass(frozen=True, slots=True)
class RewardData:
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
            "tokens": sum(example.tokens for example in self.train),
            "left_out": {reason: count for reason, count in sorted(self.left_out.items()) if count},
            "steps": self.total,
        }


def prepare_reward(config: RewardConfig, comparisons: Sequence[Comparison], renderer: Renderer) -> RewardData:
    """Split by the first user message, render, and lay out the steps. Raises DataError when nothing is left."""
    chosen = _limited([each for each in comparisons if in_half(each.prompt, config.half)], config.limits)
    train, held_out = (
        render_comparisons(side, renderer, max_tokens=config.max_tokens, ties=config.ties)
        for side in split(chosen, config.held_out, lambda each: each.prompt)
    )
    left_out = train.left_out + held_out.left_out
    if not any(not pair.tie for example in train.rendered for pair in example.preferences):
        reasons = ", ".join(f"{reason}: {count}" for reason, count in sorted(left_out.items())) or "none"
        problem = "nothing but ties" if train.rendered else "no comparison"
        raise DataError(
            f"{problem} to learn from among {len(chosen)} comparisons of at most {config.max_tokens} tokens"
            f" (left out: {reasons})",
            hint="import some (`tutelage import hh FILE`), rank some at /rank, or raise max_tokens",
        )
    lengths = [example.tokens for example in train.rendered]
    steps = [
        [
            batch
            for epoch in range(config.epochs)
            for batch in epoch_batches(
                lengths, config.batch_tokens, seed=config.member_seed(member), epoch=epoch
            )
        ]
        for member in range(config.members)
    ]
    return RewardData(
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


def train_reward(
    config: RewardConfig,
    comparisons: Sequence[Comparison],
    run: Run,
    home: Path,
    *,
    start: Path | None = None,
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train every member and write the run's manifest, which is returned; a finished run returns at once.

    `start` is the SFT model's adapter. Raises ConfigError, DataError, ModelError or TrainingError.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home)
    loaded.check_room(config.max_tokens, "max_tokens")
    data = prepare_reward(config, comparisons, loaded.renderer)
    state = load_newest(run.folder)
    run.rewind(state.step if state else 0)
    training = Training(config, data, loaded.model, run, start)
    members = tuple(train_member(training, index, state) for index in range(config.members))

    unseen = data.held_out or data.train
    sample = random.Random(config.seed).sample(unseen, min(UNIT_SAMPLE, len(unseen)))
    answers = own_answers(loaded, start, sample, config.answer_tokens, seed=config.seed) if start else None
    reward = in_unit(loaded.model, members, answers or candidates(sample))
    held_out = Judged(data.held_out, score_examples(loaded.model, reward, data.held_out, config.micro_tokens))
    evaluation = report(held_out, data.train, seed=config.seed)
    reward = replace(reward, temperature=evaluation["calibration"]["temperature"])
    if world().is_first:
        save_reward_model(loaded.model, reward, run.folder / "adapter", base=config.model)
    manifest = {
        "kind": "reward",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": {**evaluation, **data.summary()},
        **(lineage or {}),
    }
    run.finish(manifest)
    if world().is_first:
        shutil.rmtree(run.folder / TRAINED, ignore_errors=True)
    return manifest


@dataclass(frozen=True, slots=True)
class Training:
    """What the members of a run have in common."""

    config: RewardConfig
    data: RewardData
    model: CausalModel
    run: Run
    start: Path | None


def train_member(training: Training, index: int, state: State | None) -> ValueModel:
    """Train one member, go on with it, or read it when it is done. `state` is where the run was left."""
    config, data, model, run = training.config, training.data, training.model, training.run
    steps, before = data.steps[index], data.before(index)
    folder = run.folder / TRAINED / str(index)
    if state is not None and state.step >= before + len(steps):
        return load_member(model, folder, name=f"{ADAPTER}-{index}")
    member = new_member(training, index)
    optimizer = adamw(
        [
            (model.adapter_parameters(member.adapter), config.learning_rate),
            (member.head.parameters(), config.head_learning_rate),
        ]
    )
    first, best = 0, Best()
    if state is not None and state.step > before:
        first, best = state.step - before, Best.unpacked(state)
        restore_member(model, member, state.tensors)
        unpack_optimizer(optimizer, section("optimizer", state.tensors))

    for step in range(first, len(steps)):
        set_rate(optimizer, cosine(step, len(steps), warmup=config.warmup_steps))
        examples = [data.train[place] for place in steps[step]]
        loss, accuracy = accumulate_gradients(model, member, examples, config.micro_tokens)
        place = f"reward model, member {index}, step {step}"
        norm = update(optimizer, loss, max_norm=config.max_norm, where=place)
        metrics = {"member": index, "loss": loss, "accuracy": accuracy, "gradient_norm": norm}
        metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
        last = step + 1 == len(steps)
        if data.held_out and (last or (step + 1) % config.evaluate_every == 0):
            metrics["held_out_loss"] = held_out_loss(training, member)
            best = best.after(metrics["held_out_loss"], member_tensors(model, member))
        run.log(before + step, data.total, metrics)
        if best.is_final:
            break
        if (step + 1) % config.checkpoint_every == 0 and not last:
            kept, scalars = best.packed()
            tensors = member_tensors(model, member) | prefixed("optimizer", pack_optimizer(optimizer)) | kept
            save(run.folder, State(before + step + 1, tensors, scalars))

    if best.tensors:
        restore_member(model, member, best.tensors)
    if world().is_first:
        save_member(model, member, folder, base=config.model)
    save(run.folder, State(before + len(steps), {}))
    return member


def new_member(training: Training, index: int) -> ValueModel:
    """A member before its first step: the SFT model's adapter, or a new one, and a new head."""
    model, config, name = training.model, training.config, f"{ADAPTER}-{index}"
    seed = config.member_seed(index)
    if training.start is None:
        model.add_adapter(name, AdapterShape(config.rank, config.alpha), seed=seed)
    else:
        load_adapter(model, name, training.start)
    return ValueModel(name, ScalarHead(model.width, seed=seed).to(model.device))


def member_tensors(model: CausalModel, member: ValueModel) -> dict[str, Tensor]:
    """What trains of a member."""
    adapter = prefixed("adapter", model.adapter_tensors(member.adapter))
    return adapter | prefixed("head", member.head.state_dict())


def restore_member(model: CausalModel, member: ValueModel, tensors: dict[str, Tensor]) -> None:
    """Put back what `member_tensors` gave."""
    model.set_adapter_tensors(member.adapter, section("adapter", tensors))
    member.head.load_state_dict(section("head", tensors))


def accumulate_gradients(
    model: CausalModel, member: ValueModel, examples: Sequence[PreferenceExample], micro_tokens: int
) -> tuple[float, float]:
    """Add the gradient of the mean loss of the comparisons; returns that loss and the share of pairs put right.

    The mean is weighted by how reliable their authors are.
    """
    loss, right, judged = 0.0, 0.0, 0
    whole = sum(example.weight for example in examples)
    mine = share(examples, _tokens)
    for group in micro_batches(mine, micro_tokens):
        batch = preference_trees(group, model.device)
        scores = RewardModel((member,)).tree_scores(model, batch)[:, 0].split_with_sizes(batch.counts)
        losses = [
            example.weight * preference_loss(each, example.preferences)
            for each, example in zip(scores, group, strict=True)
        ]
        part = torch.stack(losses).sum() / whole
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        gaps = margins(group, [each.detach() for each in scores])
        right += float((gaps > 0).sum())
        judged += len(gaps)
    loss, right, pairs = sum_scalars(loss, right, judged)
    return loss, right / pairs if pairs else 0.5


def held_out_loss(training: Training, member: ValueModel) -> float:
    """The mean loss of (a sample of) the held-out comparisons."""
    config, held_out = training.config, training.data.held_out
    sample = random.Random(config.seed).sample(held_out, min(LOOK_SAMPLE, len(held_out)))
    scores = score_examples(training.model, RewardModel((member,)), sample, config.micro_tokens)
    pairs = zip(scores, sample, strict=True)
    losses = [preference_loss(each[:, 0], example.preferences) for each, example in pairs]
    return float(torch.stack(losses).mean())


@torch.inference_mode()
def score_examples(
    model: CausalModel, reward: RewardModel, examples: Sequence[PreferenceExample], micro_tokens: int
) -> list[Tensor]:
    """Every member's scores of each comparison's completions, on the CPU: (completions, members) each."""
    mine = share(list(enumerate(examples)), lambda item: item[1].tokens)
    scores: list[Tensor] = []
    for group in micro_batches([example for _, example in mine], micro_tokens):
        batch = preference_trees(group, model.device)
        scores += reward.tree_scores(model, batch).cpu().split_with_sizes(batch.counts)
    return collect([(place, each) for (place, _), each in zip(mine, scores, strict=True)], len(examples))


def micro_batches(examples: Sequence[PreferenceExample], micro_tokens: int) -> list[list[PreferenceExample]]:
    """Cut comparisons into groups of at most `micro_tokens` tokens."""
    lengths = [example.tokens for example in examples]
    return [
        [examples[index] for index in group] for group in fill(range(len(examples)), lengths, micro_tokens)
    ]


def _tokens(example: PreferenceExample) -> int:
    return example.tokens
