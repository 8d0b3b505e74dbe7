"""DPO: the policy learns from comparisons directly, without a reward model or sampling. A baseline for PPO.

Read it top to bottom. A completion's implicit reward is beta times how much likelier the policy makes it than the
SFT model does; it is trained on all judged pairs of each prompt with the reward model's own loss. A prompt and its
completions are one tree of the batch. What the SFT model thinks of every completion that is trained on or judged is
computed before the first step, while the policy still is that model, and kept: there is no second model.
Left out: label smoothing, a term for the chosen answer's likelihood, dropout, weight decay.

Source: Rafailov et al. 2023 (2305.18290), equation 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from tutelage.datasets.preference import PreferenceExample
from tutelage.dialogue import Comparison
from tutelage.errors import Sentence
from tutelage.models.adapters import AdapterShape
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.models.logprobs import token_scores
from tutelage.rendering import Renderer
from tutelage.training.agreement import margins, pair_accuracy
from tutelage.training.checkpoints import (
    State,
    digest_of,
    load_same,
    pack_optimizer,
    prefixed,
    resuming,
    save,
    section,
    unpack_optimizer,
)
from tutelage.training.comparisons import ComparisonData, ComparisonSettings, micro_batches, prepare
from tutelage.training.distributed import collect, share, sum_scalars
from tutelage.training.flat import preference_trees
from tutelage.training.losses import preference_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import AdamW, cosine, set_rate, update
from tutelage.training.weights import Weights, new_adapter, whole_model

POLICY = "policy"


class DPOConfig(ComparisonSettings):
    """Settings of DPO. `full` trains all weights instead of an adapter."""

    full: bool = False
    beta: float = Field(default=0.1, gt=0)
    learning_rate: float = Field(default=5e-5, gt=0)


def prepare_dpo(config: DPOConfig, comparisons: Sequence[Comparison], renderer: Renderer) -> ComparisonData:
    """The comparisons that a reward model of these settings would see. Raises DataError when nothing is left."""
    return prepare(config, comparisons, renderer, orders=[config.seed])


def train_dpo(
    config: DPOConfig,
    comparisons: Sequence[Comparison],
    run: Run,
    home: Path,
    *,
    start: Path | None,
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the policy and write the run's manifest, which is returned; a finished run returns at once.

    `start` is the SFT model's adapter, None where the recipe's model is the SFT model.
    Raises DataError, ModelError, TrainingError.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home)
    loaded.check_room(config.longest)
    data = prepare_dpo(config, comparisons, loaded.renderer)
    if config.full:
        policy = whole_model(loaded.model, start=start)
    else:
        policy = new_adapter(loaded.model, POLICY, AdapterShape(), seed=config.seed, start=start)
    optimizer = AdamW([(policy.parameters, config.learning_rate)])
    steps = data.steps[0]
    learnt = sorted({index for step in steps for index in step})
    examples = [*(data.train[index] for index in learnt), *data.held_out]
    mark = digest_of(ids for each in examples for ids in (each.prompt_ids, *each.completions))

    first = 0
    state = load_same(run.folder, mark)
    if state is None:
        reference = likelihoods(policy, examples, config.micro_tokens)
    else:
        with resuming(run.folder):
            first = state.step
            policy.restore(section("policy", state.tensors))
            unpack_optimizer(optimizer, section("optimizer", state.tensors))
            counts = [len(example.completions) for example in examples]
            reference = list(state.tensors["reference"].split_with_sizes(counts))
    run.rewind(first)
    before = dict(zip(learnt, reference, strict=False))

    for step in range(first, len(steps)):
        set_rate(optimizer, cosine(step, len(steps), warmup=config.warmup_steps))
        chosen = [(data.train[index], before[index]) for index in steps[step]]
        place = Sentence("DPO step {step}", step=step)
        with run.step(step, len(steps)) as metrics:
            loss, margin = accumulate_gradients(
                policy, chosen, beta=config.beta, micro_tokens=config.micro_tokens
            )
            metrics |= {"loss": loss, "margin": margin}
            metrics["learning_rate"] = optimizer.param_groups[0]["lr"]
            metrics["gradient_norm"] = update(optimizer, loss, max_norm=config.max_norm, where=place)
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < len(steps):
            tensors = prefixed("policy", policy.tensors()) | {"reference": torch.cat(reference)}
            tensors |= prefixed("optimizer", pack_optimizer(optimizer))
            save(run.folder, State(step + 1, tensors, {"data": mark}))

    after = likelihoods(policy, data.held_out, config.micro_tokens)
    rewards = [config.beta * (new - old) for new, old in zip(after, reference[len(learnt) :], strict=True)]
    policy.save(run.folder / policy.kind, base=config.model, source=locate(config.model, home))
    manifest = {
        "kind": "chat",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": {
            "held_out_accuracy": pair_accuracy(data.held_out, rewards, seed=config.seed).as_dict(),
            **data.summary(),
        },
        **(lineage or {}),
    }
    run.finish(manifest)
    return manifest


def accumulate_gradients(
    policy: Weights,
    chosen: Sequence[tuple[PreferenceExample, Tensor]],
    *,
    beta: float,
    micro_tokens: int,
) -> tuple[float, float]:
    """Add the gradient of the mean loss of comparisons, each with its reference log-probabilities.

    The mean is weighted by how reliable their authors are. Returns that loss and the mean margin of the pairs that are
    no ties: the implicit reward of the better less that of the worse.
    """
    loss, margin, judged = 0.0, 0.0, 0
    whole = sum(example.weight for example, _ in chosen)
    mine = dict(enumerate(share(chosen, lambda each: each[0].tokens)))
    place = 0
    for group in micro_batches([example for example, _ in mine.values()], micro_tokens):
        references = [mine[place + index][1].to(policy.model.device) for index in range(len(group))]
        place += len(group)
        sums = sequence_logprobs(policy, group)
        rewards = [beta * (new - old) for new, old in zip(sums, references, strict=True)]
        losses = [
            example.weight * preference_loss(each, example.preferences)
            for each, example in zip(rewards, group, strict=True)
        ]
        part = torch.stack(losses).sum() / whole
        part.backward()  # type: ignore[no-untyped-call]
        loss += part.item()
        gaps = margins(group, [each.detach() for each in rewards])
        margin += float(gaps.sum())
        judged += len(gaps)
    loss, margin, pairs = sum_scalars(loss, margin, judged)
    return loss, margin / pairs if pairs else 0.0


@torch.inference_mode()
def likelihoods(policy: Weights, examples: Sequence[PreferenceExample], micro_tokens: int) -> list[Tensor]:
    """Log-probability of every completion of every comparison: a tensor (completions,) each, on the CPU."""
    mine = share(list(enumerate(examples)), lambda item: item[1].tokens)
    found: list[Tensor] = []
    for group in micro_batches([example for _, example in mine], micro_tokens):
        found += [each.cpu() for each in sequence_logprobs(policy, group)]
    places = [place for place, _ in mine]
    return collect(list(zip(places, found, strict=True)), len(examples))


def sequence_logprobs(policy: Weights, examples: Sequence[PreferenceExample]) -> tuple[Tensor, ...]:
    """Log-probability of each completion: a tensor (completions,) for each comparison."""
    model = policy.model
    batch = preference_trees(examples, model.device)
    at, before, lengths = completion_places(examples)
    with policy.active():
        hidden = model.hidden(batch.token_ids, batch.layout)
    tokens = token_scores(hidden[before], model.head, batch.token_ids[at]).logprobs
    sums: tuple[Tensor, ...] = torch.stack(
        [each.sum() for each in tokens.split_with_sizes(lengths)]
    ).split_with_sizes(batch.counts)
    return sums


def completion_places(examples: Sequence[PreferenceExample]) -> tuple[list[int], list[int], list[int]]:
    """Places in the flat trees of every completion's tokens, of the tokens before them, and completions' lengths.

    The token before a completion's first one is the prompt's last.
    """
    at: list[int] = []
    before: list[int] = []
    lengths: list[int] = []
    place = 0
    for example in examples:
        place += len(example.prompt_ids)
        last = place - 1
        for completion in example.completions:
            tokens = range(place, place + len(completion))
            at += tokens
            before += [last, *tokens[:-1]]
            lengths.append(len(completion))
            place = tokens.stop
    return at, before, lengths
