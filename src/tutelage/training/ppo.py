"""PPO: the policy learns to write what the reward model scores high, held near the SFT model.

Read it top to bottom. Policy, reference (the SFT model), value model and each member of the reward model are
adapters on one frozen base, with scalar heads. A step: sample one completion for each prompt, score every
token, one pass of clipped updates over minibatches. The reward model is first shifted and scaled so that the SFT
model's own samples score with mean 0 and deviation 1. Rollouts are drawn at temperature 1 from the whole
distribution, or the ratios would be biased. Left out: reward whitening, dropout, pretraining mix, weight averaging.

Sources: Ouyang et al. 2022 (2203.02155), section 3.5; Ziegler et al. 2019 (1909.08593) for the KL controller;
Huang et al. 2024 (2403.17031) for the details.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from tutelage.config import Settings
from tutelage.datasets.prompts import Prompt, render_prompts
from tutelage.datasets.splits import split
from tutelage.dialogue import Dialogue
from tutelage.errors import DataError, InvariantViolated
from tutelage.models.adapters import load_adapter, save_adapter
from tutelage.models.loading import load_model
from tutelage.models.logprobs import token_scores
from tutelage.rendering import Renderer
from tutelage.training.advantages import generalised_advantages, token_rewards, whiten
from tutelage.training.checkpoints import (
    State,
    load_newest,
    pack_optimizer,
    prefixed,
    save,
    section,
    unpack_optimizer,
)
from tutelage.training.flat import flatten
from tutelage.training.losses import clipped_policy_loss, clipped_value_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import adamw, set_rate, update
from tutelage.training.reward_model import load_reward_model, load_value_model
from tutelage.training.rollouts import Rollout, RowView, as_examples, micro_batches, sample, score
from tutelage.training.standing import (
    POLICY,
    REFERENCE,
    REWARD,
    VALUE,
    Models,
    calibrate,
    compare,
    sample_scores,
)

_RATIO_TOLERANCE = 1e-4


class PPOConfig(Settings):
    """Settings of PPO. `kl_target` None keeps `kl_coefficient` as it is; otherwise it adapts towards the target."""

    model: str = "builtin"
    sources: list[str] = Field(default_factory=list)
    max_prompt_tokens: int = Field(default=256, ge=8)
    max_new_tokens: int = Field(default=64, ge=1)
    held_out: float = Field(default=0.1, gt=0, lt=1)
    held_out_prompts: int = Field(default=64, ge=1)
    steps: int = Field(default=20, ge=1)
    prompts_per_step: int = Field(default=32, ge=2)
    minibatches: int = Field(default=4, ge=1)
    micro_tokens: int = Field(default=2048, ge=16)
    learning_rate: float = Field(default=1e-4, gt=0)
    value_learning_rate: float = Field(default=2e-4, gt=0)
    value_warmup_steps: int = Field(default=2, ge=0)
    clip: float = Field(default=0.2, gt=0)
    value_clip: float = Field(default=0.2, gt=0)
    gamma: float = Field(default=1.0, gt=0, le=1)
    lam: float = Field(default=0.95, ge=0, le=1)
    kl_coefficient: float = Field(default=0.05, gt=0)
    kl_target: float | None = Field(default=6.0, gt=0)
    kl_horizon: int = Field(default=2000, ge=1)
    unended_penalty: float = Field(default=1.0, ge=0)
    max_norm: float = Field(default=1.0, gt=0)
    checkpoint_every: int = Field(default=5, ge=1)
    seed: int = 0


@dataclass(frozen=True, slots=True)
class PPOData:
    """Rendered prompts on both sides of the split."""

    train: list[Prompt]
    held_out: list[Prompt]

    def summary(self) -> dict[str, Any]:
        """What would be trained on, in numbers."""
        return {"prompts": len(self.train), "held_out_prompts": len(self.held_out)}


def prepare_ppo(config: PPOConfig, prompts: Sequence[Dialogue], renderer: Renderer) -> PPOData:
    """Choose by source, split by the first user message, render. Raises DataError when one side is empty."""
    chosen = [each for each in prompts if not config.sources or each.source in config.sources]
    train, held_out = (
        render_prompts(side, renderer, max_tokens=config.max_prompt_tokens)
        for side in split(chosen, config.held_out, lambda dialogue: dialogue.messages)
    )
    if not train or not held_out:
        raise DataError(
            f"{len(train)} prompts to train on and {len(held_out)} held out, of {len(prompts)} in all",
            hint="import dialogues (`tutelage import oasst FILE`), raise max_prompt_tokens, or change held_out",
        )
    random.Random(config.seed).shuffle(held_out)
    return PPOData(train, held_out[: config.held_out_prompts])


def train_ppo(
    config: PPOConfig,
    prompts: Sequence[Dialogue],
    run: Run,
    home: Path,
    *,
    start: Path,
    reward: Path,
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the policy and write the run's manifest, which is returned; a finished run returns at once.

    `start` is the SFT model's adapter, `reward` the reward model's folder. Raises DataError, ModelError,
    TrainingError; InvariantViolated when a number that cannot be wrong is wrong.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home)
    model, renderer = loaded.model, loaded.renderer
    data = prepare_ppo(config, prompts, renderer)
    load_adapter(model, REFERENCE, start)
    model.copy_adapter(REFERENCE, POLICY)
    reward_model = load_reward_model(model, reward, name=REWARD)
    value_model = load_value_model(model, reward, name=VALUE)
    policy_optimizer = adamw([(model.adapter_parameters(POLICY), config.learning_rate)])
    value_parameters = [*model.adapter_parameters(VALUE), *value_model.head.parameters()]
    value_optimizer = adamw([(value_parameters, config.value_learning_rate)])
    models = Models(loaded, value_model, reward_model)
    standing = partial(
        sample_scores, models, max_new_tokens=config.max_new_tokens, micro_tokens=config.micro_tokens
    )

    state = load_newest(run.folder)
    if state is None:
        first, beta = 0, config.kl_coefficient
        known = data.train[: 2 * config.prompts_per_step]
        calibrate(models, standing(known, REFERENCE, seed=config.seed + 1)["reward"])
        before = standing(data.held_out, REFERENCE, seed=config.seed + 2)
    else:
        first, beta, before = state.step, state.scalars["beta"], state.scalars["before"]
        models.restore(state)
        unpack_optimizer(policy_optimizer, section("policy_optimizer", state.tensors))
        unpack_optimizer(value_optimizer, section("value_optimizer", state.tensors))
    run.rewind(first)

    for step in range(first, config.steps):
        clock = time.monotonic()
        chosen = step_prompts(len(data.train), config, step)
        prompt_ids = [data.train[index].token_ids for index in chosen]
        seeds = [((config.seed * 1_000_003 + step) * 10_007 + index) % 2**63 for index in range(len(chosen))]
        completions = sample(
            model,
            POLICY,
            prompt_ids,
            stop_ids=renderer.stop_ids,
            max_new_tokens=config.max_new_tokens,
            seeds=seeds,
        )
        generated = time.monotonic()

        examples = as_examples(prompt_ids, completions)
        minibatches = [range(part, len(examples), config.minibatches) for part in range(config.minibatches)]
        groups = [
            micro_batches(examples, members, config.micro_tokens) for members in minibatches if len(members)
        ]
        rollout = score(
            model,
            completions,
            examples,
            [group for minibatch in groups for group in minibatch],
            policy=POLICY,
            reference=REFERENCE,
            value=value_model,
            reward=reward_model,
        )
        check_rollout(rollout, step)
        final = rollout.scores - config.unended_penalty * ~rollout.ended
        rewards = token_rewards(final, rollout.kl, rollout.mask, beta)
        advantages, returns = generalised_advantages(
            rewards, rollout.values, rollout.mask, gamma=config.gamma, lam=config.lam
        )
        advantages = whiten(advantages, rollout.mask)
        scored = time.monotonic()

        # The value model learns alone first: a policy led by wrong values unlearns.
        set_rate(policy_optimizer, 0.0 if step < config.value_warmup_steps else 1.0)
        ratios, clipped, policy_losses, value_losses = [], [], [], []
        for number, minibatch in enumerate(groups):
            tokens = sum(int(rollout.mask[index].sum()) for group in minibatch for index in group)
            policy_loss = value_loss = 0.0
            for group in minibatch:
                batch = flatten([examples[index] for index in group], model.device)
                rows = RowView(group, [int(rollout.mask[index].sum()) for index in group])
                with model.using(POLICY):
                    hidden = model.hidden(batch.token_ids, batch.layout)[batch.scored]
                    logprobs = token_scores(hidden, model.head, batch.targets).logprobs.cpu()
                    part = clipped_policy_loss(
                        logprobs, rows.take(rollout.logprobs), rows.take(advantages), config.clip
                    )
                    (part.loss / tokens).backward()  # type: ignore[no-untyped-call]
                with model.using(VALUE):
                    hidden = model.hidden(batch.token_ids, batch.layout)[batch.scored]
                    error = clipped_value_loss(
                        value_model.head(hidden).cpu(),
                        rows.take(rollout.values),
                        rows.take(returns),
                        config.value_clip,
                    )
                    (error / tokens).backward()  # type: ignore[no-untyped-call]
                policy_loss += part.loss.item() / tokens
                value_loss += error.item() / tokens
                ratios.append(part.ratio)
                clipped.append(float(part.clipped))
                if number == 0:
                    check_first_ratio(part.ratio, step)
            place = f"PPO step {step}"
            update(policy_optimizer, policy_loss, max_norm=config.max_norm, where=place)
            update(value_optimizer, value_loss, max_norm=config.max_norm, where=place)
            policy_losses.append(policy_loss)
            value_losses.append(value_loss)
        updated = time.monotonic()

        kl = float(rollout.kl.sum(dim=1).mean())
        run.log(
            step,
            config.steps,
            {
                "reward": float(rollout.scores.mean()),
                "score": float(final.mean()),
                "kl": kl,
                "kl_coefficient": beta,
                "entropy": rollout.entropy,
                "length": float(rollout.mask.sum(dim=1).float().mean()),
                "ended": float(rollout.ended.float().mean()),
                "policy_loss": statistics.fmean(policy_losses),
                "value_loss": statistics.fmean(value_losses),
                "ratio": float(torch.cat(ratios).mean()),
                "clip_fraction": statistics.fmean(clipped),
                "sampler_gap": float(
                    (rollout.logprobs - rollout.sampler_logprobs)[rollout.mask].abs().mean()
                ),
                "seconds_generate": generated - clock,
                "seconds_score": scored - generated,
                "seconds_update": updated - scored,
            },
        )
        beta = adapt_beta(beta, kl, config, len(examples))
        if (step + 1) % config.checkpoint_every == 0 and step + 1 < config.steps:
            tensors = models.tensors()
            tensors |= prefixed("policy_optimizer", pack_optimizer(policy_optimizer))
            tensors |= prefixed("value_optimizer", pack_optimizer(value_optimizer))
            save(run.folder, State(step + 1, tensors, {"beta": beta, "before": before}))

    after = standing(data.held_out, POLICY, seed=config.seed + 2)
    save_adapter(model, POLICY, run.folder / "adapter", base=config.model)
    manifest = {
        "kind": "chat",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": {
            **compare(before, after, unended_penalty=config.unended_penalty, seed=config.seed),
            **data.summary(),
        },
        **(lineage or {}),
    }
    run.finish(manifest)
    return manifest


def step_prompts(count: int, config: PPOConfig, step: int) -> list[int]:
    """Indices of a step's prompts: epoch after epoch, each in its own order."""
    chosen: list[int] = []
    first = step * config.prompts_per_step
    for place in range(first, first + config.prompts_per_step):
        epoch, index = divmod(place, count)
        order = list(range(count))
        random.Random(f"{config.seed}/{epoch}").shuffle(order)
        chosen.append(order[index])
    return chosen


def adapt_beta(beta: float, kl: float, config: PPOConfig, batch: int) -> float:
    """The next KL coefficient. Source: Ziegler et al. 2019 (1909.08593), section 2.2."""
    if config.kl_target is None:
        return beta
    error = max(-0.2, min(0.2, kl / config.kl_target - 1))
    return beta * (1 + error * batch / config.kl_horizon)


def check_rollout(rollout: Rollout, step: int) -> None:
    """Raises InvariantViolated when a rollout cannot be right."""
    kl = float(rollout.kl.sum(dim=1).mean())
    if step == 0 and abs(kl) > 1e-4:
        raise InvariantViolated(
            f"the policy is {kl:.4f} nats away from the SFT model before its first update",
            where="PPO step 0",
            hint="the policy must start as a copy of the SFT adapter: check `start`",
        )
    if rollout.entropy <= 0:
        raise InvariantViolated(
            "the policy's entropy is zero: it always says the same",
            where=f"PPO step {step}",
            hint="lower learning_rate",
        )
    if not bool(torch.isfinite(rollout.scores).all() and torch.isfinite(rollout.kl).all()):
        raise InvariantViolated(
            "a reward or a KL is not finite",
            where=f"PPO step {step}",
            hint="lower learning_rate and train anew",
        )


def check_first_ratio(ratio: torch.Tensor, step: int) -> None:
    """Raises InvariantViolated unless the first minibatch of a step sees the policy that sampled it."""
    gap = float((ratio - 1).abs().max())
    if gap > _RATIO_TOLERANCE:
        raise InvariantViolated(
            f"before any update the new policy differs from the old by a ratio of {1 + gap:.4f}",
            where=f"PPO step {step}",
            hint="this is a defect of the program or of the hardware, not of the recipe: please report it",
        )
