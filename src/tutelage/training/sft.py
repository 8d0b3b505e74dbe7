"""Supervised fine-tuning: the model learns to write the assistant's turns of people's demonstrations.

Read it top to bottom. Loss on the assistant's tokens only, each turn's end token included; dialogues stand one
after the other in a flat batch and do not see each other; logits exist only at scored places. An adapter trains and
the base stays frozen, or, with `full`, all weights train. Left out: dropout, weight decay and prompt loss.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import Field

from tutelage.config import Seed, Settings
from tutelage.datasets.batching import epoch_batches, fill
from tutelage.datasets.sft import Examples, mix, render_examples
from tutelage.datasets.splits import split
from tutelage.dialogue import Dialogue
from tutelage.errors import DataError, Sentence
from tutelage.models.adapters import AdapterShape
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.rendering import Rendered, Renderer
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
from tutelage.training.distributed import share, sum_scalars
from tutelage.training.flat import flatten
from tutelage.training.metrics import Run
from tutelage.training.optimizer import AdamW, cosine, set_rate, update
from tutelage.training.sharding import in_step
from tutelage.training.weights import Weights, new_adapter, whole_model

ADAPTER = "sft"


class SFTConfig(Settings):
    """Settings of supervised fine-tuning. `shares` mixes sources by name; empty takes everything.

    `full` trains all weights instead of an adapter; `recompute` trades a third more time for less memory;
    `shard` splits the layers over the processes.
    """

    model: str = "builtin"
    full: bool = False
    recompute: bool = False
    shard: bool = False
    rank: int = Field(default=16, ge=1)
    alpha: int = Field(default=32, ge=1)
    shares: dict[str, Annotated[float, Field(gt=0)]] = Field(default_factory=dict)
    max_tokens: int = Field(default=1024, ge=16)
    held_out: float = Field(default=0.1, ge=0, lt=1)
    epochs: int = Field(default=2, ge=1)
    max_steps: int | None = Field(default=None, ge=1)
    batch_tokens: int = Field(default=4096, ge=16)
    micro_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=3e-4, gt=0)
    warmup_steps: int = Field(default=5, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=20, ge=1)
    seed: Seed = 0

    @property
    def longest(self) -> dict[str, int]:
        """How many tokens a sequence may have, by the setting that says so."""
        return {"max_tokens": self.max_tokens}


@dataclass(frozen=True, slots=True)
class SFTData:
    """Rendered demonstrations on both sides of the split, and the batches of every step."""

    train: Examples
    held_out: Examples
    steps: list[list[int]]

    def summary(self) -> dict[str, Any]:
        """What would be trained on, in numbers."""
        tokens = [len(example.token_ids) for example in self.train.rendered]
        return {
            "dialogues": len(tokens),
            "held_out": len(self.held_out.rendered),
            "tokens": sum(tokens),
            "scored_tokens": sum(sum(example.completion_mask) for example in self.train.rendered),
            "shortened": self.train.shortened,
            "left_out": self.train.left_out + self.held_out.left_out,
            "steps": len(self.steps),
        }


def prepare_sft(config: SFTConfig, dialogues: Sequence[Dialogue], renderer: Renderer) -> SFTData:
    """Mix, split by author and root, render, and lay out every step. Raises DataError when nothing is left."""
    chosen = mix(dialogues, config.shares, seed=config.seed)
    train, held_out = (
        render_examples(side, renderer, max_tokens=config.max_tokens)
        for side in split(chosen, config.held_out)
    )
    if not train.rendered:
        raise DataError(
            Sentence(
                "no demonstration of at most {max_tokens} tokens to learn from ({all} in all)",
                max_tokens=config.max_tokens,
                all=len(chosen),
            ),
            hint="import some (`tutelage import messages FILE`), write some at /write, or raise max_tokens",
        )
    lengths = [len(example.token_ids) for example in train.rendered]
    steps = [
        batch
        for epoch in range(config.epochs)
        for batch in epoch_batches(lengths, config.batch_tokens, seed=config.seed, epoch=epoch)
    ]
    return SFTData(train, held_out, steps[: config.max_steps])


def train_sft(
    config: SFTConfig,
    dialogues: Sequence[Dialogue],
    run: Run,
    home: Path,
    *,
    start: Path | None = None,
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train an adapter and write the run's manifest, which is returned; a finished run returns at once.

    `start` is an adapter to go on from. Raises ConfigError, DataError, ModelError or TrainingError.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home, on_host=config.shard)
    model = loaded.model
    loaded.check_room(config.longest)
    data = prepare_sft(config, dialogues, loaded.renderer)
    model.recompute = config.recompute
    if config.full:
        weights = whole_model(model, start=start)
    else:
        shape = AdapterShape(config.rank, config.alpha)
        weights = new_adapter(model, ADAPTER, shape, seed=config.seed, start=start)
    if config.shard:
        weights = weights.sharded()
    optimizer = AdamW([(weights.parameters, config.learning_rate)])
    total = len(data.steps)
    loss_held_out = partial(held_out_loss, weights, data.held_out.rendered, config.micro_tokens)

    state = load_newest(run.folder)
    if state is None:
        first = 0
        loss_before = loss_held_out()
    else:
        with resuming(run.folder):
            first, loss_before = state.step, state.scalars["held_out_loss_before"]
            weights.restore(section("weights", state.tensors))
            unpack_optimizer(optimizer, section("optimizer", state.tensors))
    run.rewind(first)

    for step in range(first, total):
        set_rate(optimizer, cosine(step, total, warmup=config.warmup_steps))
        examples = [data.train.rendered[index] for index in data.steps[step]]
        place = Sentence("SFT step {step}", step=step)
        with run.step(step, total) as metrics:
            loss, scored = accumulate_gradients(weights, examples, config.micro_tokens)
            metrics |= {"loss": loss, "scored_tokens": scored}
            metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
            metrics["gradient_norm"] = update(optimizer, loss, max_norm=config.max_norm, where=place)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < total:
            tensors = prefixed("weights", weights.tensors())
            tensors |= prefixed("optimizer", pack_optimizer(optimizer))
            save(run.folder, State(step + 1, tensors, {"held_out_loss_before": loss_before}))

    loss_after = loss_held_out()
    weights.save(run.folder / weights.kind, base=config.model, source=locate(config.model, home))
    manifest = {
        "kind": "chat",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": {"held_out_loss_before": loss_before, "held_out_loss": loss_after, **data.summary()},
        **(lineage or {}),
    }
    run.finish(manifest)
    return manifest


def accumulate_gradients(
    weights: Weights, examples: Sequence[Rendered], micro_tokens: int
) -> tuple[float, int]:
    """Add the gradient of the mean loss over all scored tokens of `examples`; returns that loss and their number.

    However the examples are cut into micro-batches and shared among processes, the gradients add up to the same.
    """
    total = sum(sum(example.completion_mask[1:]) for example in examples)
    loss = 0.0
    groups = micro_batches(share(examples, _tokens), micro_tokens)
    for group, weight in in_step(weights.model, groups, [examples[0]]):
        with weights.active():  # for the backward pass too: layers that are computed again need it
            scores = weights.token_scores(flatten(group, weights.model.device))
            part = scores.logprobs.sum() * (-weight / total)
            part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return sum_scalars(loss)[0], total


@torch.no_grad()
def held_out_loss(weights: Weights, examples: Sequence[Rendered], micro_tokens: int) -> float | None:
    """Mean negative log-probability of a scored token, in nats; None when nothing is held out."""
    total = sum(sum(example.completion_mask[1:]) for example in examples)
    if not total:
        return None
    loss = 0.0
    groups = micro_batches(share(examples, _tokens), micro_tokens)
    for group, weight in in_step(weights.model, groups, [examples[0]]):
        scores = weights.token_scores(flatten(group, weights.model.device))
        loss -= weight * scores.logprobs.sum().item()
    return sum_scalars(loss)[0] / total


def micro_batches(examples: Sequence[Rendered], micro_tokens: int) -> list[list[Rendered]]:
    """Cut examples into groups of similar length, of at most `micro_tokens` tokens."""
    lengths = [_tokens(example) for example in examples]
    order = sorted(range(len(examples)), key=lengths.__getitem__)
    return [[examples[index] for index in group] for group in fill(order, lengths, micro_tokens)]


def _tokens(example: Rendered) -> int:
    return len(example.token_ids)
