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
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from tutelage.datasets.preference import PreferenceExample
from tutelage.dialogue import Comparison
from tutelage.errors import Sentence
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
    resuming,
    save,
    section,
    unpack_optimizer,
)
from tutelage.training.comparisons import ComparisonData, ComparisonSettings, micro_batches, prepare
from tutelage.training.distributed import collect, share, sum_scalars, world
from tutelage.training.early_stop import Best
from tutelage.training.flat import preference_trees
from tutelage.training.losses import preference_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import AdamW, cosine, set_rate, update
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


class RewardConfig(ComparisonSettings):
    """Settings of reward training. `max_steps` is a member's.

    `evaluate_every` counts steps between looks at held-out prompts; the last step always has one.
    """

    members: int = Field(default=3, ge=1, le=100)
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    evaluate_every: int = Field(default=50, ge=1)
    learning_rate: float = Field(default=1e-4, gt=0)
    head_learning_rate: float = Field(default=1e-3, gt=0)
    answer_tokens: int = Field(default=96, ge=1)

    def member_seed(self, member: int) -> int:
        """What decides a member's adapter, head and order of the data."""
        return self.seed * 101 + member


def prepare_reward(
    config: RewardConfig, comparisons: Sequence[Comparison], renderer: Renderer
) -> ComparisonData:
    """The comparisons, with the steps of each member in its own order. Raises DataError when nothing is left."""
    orders = [config.member_seed(member) for member in range(config.members)]
    return prepare(config, comparisons, renderer, orders=orders)


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
    loaded.check_room(config.longest)
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
    data: ComparisonData
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
    optimizer = AdamW(
        [
            (model.adapter_parameters(member.adapter), config.learning_rate),
            (member.head.parameters(), config.head_learning_rate),
        ]
    )
    first, best = 0, Best()
    if state is not None and state.step > before:
        with resuming(run.folder):
            first, best = state.step - before, Best.unpacked(state)
            restore_member(model, member, state.tensors)
            unpack_optimizer(optimizer, section("optimizer", state.tensors))

    for step in range(first, len(steps)):
        set_rate(optimizer, cosine(step, len(steps), warmup=config.warmup_steps))
        examples = [data.train[place] for place in steps[step]]
        place = Sentence("reward model, member {member}, step {step}", member=index, step=step)
        last = step + 1 == len(steps)
        with run.step(before + step, data.total) as metrics:
            loss, accuracy = accumulate_gradients(model, member, examples, config.micro_tokens)
            metrics |= {"member": index, "loss": loss, "accuracy": accuracy}
            metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
            metrics["gradient_norm"] = update(optimizer, loss, max_norm=config.max_norm, where=place)
            if data.held_out and (last or (step + 1) % config.evaluate_every == 0):
                metrics["held_out_loss"] = held_out_loss(training, member)
                best = best.after(metrics["held_out_loss"], member_tensors(model, member))
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


def _tokens(example: PreferenceExample) -> int:
    return example.tokens
