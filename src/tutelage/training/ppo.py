"""PPO: the policy learns to write what the reward model scores high, held near the SFT model.

Read it top to bottom: `train_ppo` is a run, `take_step` a step. Policy, reference (the SFT model), value and reward
model are adapters on one frozen base, with scalar heads; with `full`, the policy is a model of its own, all of
whose weights train. A step: sample one completion for each prompt, score every token, one or more passes of clipped
updates over minibatches, with cross-entropy on demonstrations mixed in.
The reward is first shifted and scaled so that the SFT model's own samples score with mean 0 and deviation 1.
Rollouts are drawn at temperature 1 from the whole distribution, or the ratios would be biased. Given a gold
reward model, the run ends where more reward stops being better, and gives its best moment.

Left out: reward whitening (the reward has its unit from the SFT model's samples, and a batch's own mean would
hide what it gained), discounting, dropout, weight decay, and scoring while sampling (on a processor both want the
same cores).

Sources: Ouyang et al. 2022 (2203.02155), section 3.5; Ziegler et al. 2019 (1909.08593) for the KL controller;
Huang et al. 2024 (2403.17031) for the details.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tutelage.dialogue import Dialogue
from tutelage.errors import ModelError, Sentence, TrainingError
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.rendering import Rendered
from tutelage.training.actors import AVERAGE, Learners, Models
from tutelage.training.advantages import generalised_advantages, token_rewards, whiten
from tutelage.training.checkpoints import State, copied, load_same, prefixed, resuming, save, section
from tutelage.training.course import Course
from tutelage.training.distributed import share, sum_scalars, world
from tutelage.training.flat import flatten
from tutelage.training.invariants import (
    Health,
    check_first_ratio,
    check_health,
    check_reference,
    check_rollout,
    check_sampler,
    check_start,
)
from tutelage.training.losses import clipped_policy_loss, clipped_value_loss
from tutelage.training.metrics import Run
from tutelage.training.optimizer import cosine, set_rate, update
from tutelage.training.overoptimisation import Standing, Watch, past_knee, plot
from tutelage.training.ppo_recipe import KLConfig, PPOConfig, PPOData, in_turn, prepare_ppo, seeds_of_step
from tutelage.training.remote_rollouts import RolloutServers
from tutelage.training.rollouts import (
    Rollout,
    RowView,
    as_examples,
    micro_batches,
    probe,
    sample,
    score,
    whole_distribution,
)
from tutelage.training.standing import compare, sample_scores

__all__ = ["PPOConfig", "PPOData", "prepare_ppo", "take_step", "train_ppo"]


def train_ppo(
    config: PPOConfig,
    prompts: Sequence[Dialogue],
    run: Run,
    home: Path,
    *,
    start: Path | None,
    reward: Path,
    gold: Path | None = None,
    demonstrations: Sequence[Dialogue] = (),
    lineage: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """Train the policy and write the run's manifest, which is returned; a finished run returns at once.

    start: the SFT model's adapter, None where the recipe's model is the SFT model; reward: the reward model's folder;
    gold: another's, which only watches; demonstrations: what the recipe's `mix` takes from.
    Raises DataError, ModelError, TrainingError; InvariantViolated when a number that cannot be wrong is wrong.
    """
    if run.finished:
        return run.manifest()
    loaded = load_model(config.model, home)
    loaded.check_room(config.longest)
    data = prepare_ppo(config, prompts, loaded.renderer, demonstrations=demonstrations, gold=gold is not None)
    models = Models.assemble(
        loaded,
        start=start,
        reward=reward,
        gold=gold,
        average=config.average.decay > 0,
        full=config.full,
    )
    if config.rollout_servers:
        models = replace(
            models, servers=RolloutServers(tuple(config.rollout_servers), run.folder / "rollouts")
        )
    learners = Learners.of(models, policy_rate=config.learning_rate, value_rate=config.value.learning_rate)
    given = models.average if config.average.published and models.average else models.policy
    look = partial(
        sample_scores, models, max_new_tokens=config.max_new_tokens, micro_tokens=config.micro_tokens
    )

    state = load_same(run.folder, data.judged_on)
    if state is None:
        course = begin(config, data, models, partial(look, models.reference))
        best = copied(given.tensors()) if gold else {}
    else:
        with resuming(run.folder):
            course = Course.restore(state.step, state.scalars)
            check_reference(course.probe, probe(models, data.held_out[0].token_ids))
            models.restore(state.tensors)
            learners.restore(state.tensors)
            best = section("best", state.tensors)
    run.rewind(course.step)

    stopped = ""
    while course.step < config.steps and not stopped:
        with run.step(step := course.step, config.steps) as metrics:
            task = task_of(config, data, step)
            take_step(config, models, learners, task, beta=course.beta, metrics=metrics)
            health = course.health.after(metrics["reward"], metrics["ended"])
            check_health(health, Sentence("PPO step {step}", step=step))
            beta = adapt_beta(course.beta, metrics["kl"], config.kl, config.prompts_per_step)
            course = replace(course, step=step + 1, beta=beta, health=health, seconds=course.spent(metrics))
            if course.watch and (course.step % config.gold.every == 0 or course.step == config.steps):
                seen = look(given, data.watched, seed=config.seed + 3)
                if past_knee(course.watch.best.standing, seen, noise=config.gold.noise):
                    since = course.watch.best.step
                    stopped = f"over-optimised: the gold reward is below its best at step {since}"
                course = replace(course, watch=(watch := course.watch.after(course.step, seen)))
                if watch.best.step == course.step:
                    best = copied(given.tensors())
                metrics |= {f"held_out_{key}": statistics.fmean(values) for key, values in seen.items()}
        if course.step % config.checkpoint_every == 0 and course.step < config.steps and not stopped:
            tensors = models.tensors() | learners.tensors() | prefixed("best", best)
            save(run.folder, State(course.step, tensors, course.scalars() | {"data": data.judged_on}))

    if course.watch:
        given.restore(best)
    after = look(given, data.held_out, seed=config.seed + 2)
    evaluation = compare(course.before, after, unended_penalty=config.unended_penalty, seed=config.seed)
    evaluation |= {**data.summary(), "steps": course.step, "time": course.time()}
    source = locate(config.model, home)
    given.save(run.folder / given.kind, base=config.model, source=source)
    if models.average and models.average is not given:
        models.average.save(run.folder / AVERAGE, base=config.model, source=source)
    if course.watch:
        evaluation |= {"stopped": stopped or "at its last step", "over_optimisation": course.watch.summary()}
        if world().is_first:
            plot(course.watch, run.folder / "over_optimisation.svg")
    manifest = {
        "kind": "chat",
        "model": config.model,
        "config": config.model_dump(),
        "evaluation": evaluation,
        **(lineage or {}),
    }
    run.finish(manifest)
    return manifest


def begin(config: PPOConfig, data: PPOData, models: Models, look_at_sft: Callable[..., Standing]) -> Course:
    """Give the rewards their unit, and see where the SFT model stands: the course of a run before its first step."""
    known = look_at_sft(data.train[: 2 * config.prompts_per_step], seed=config.seed + 1)
    models.calibrate(known["reward"], known.get("gold", []))
    before = look_at_sft(data.held_out, seed=config.seed + 2)
    watch = Watch.begin(look_at_sft(data.watched, seed=config.seed + 3)) if models.gold else None
    health = Health(statistics.fmean(known["ended"]))
    number = probe(models, data.held_out[0].token_ids)
    return Course(0, config.kl.coefficient, before, number, health, watch)


@dataclass(frozen=True, slots=True)
class Task:
    """What a step works on: prompts with their sampling seeds, and demonstrations to mix in."""

    step: int
    prompts: list[list[int]]
    seeds: list[int]
    demonstrations: list[Rendered]


def task_of(config: PPOConfig, data: PPOData, step: int) -> Task:
    """A step's work, a function of the recipe, the data and the step's number alone."""
    chosen = in_turn(len(data.train), config.prompts_per_step, step, seed=config.seed)
    mixed = (
        in_turn(len(data.demonstrations), config.mix.demonstrations_per_step, step, seed=config.seed)
        if data.demonstrations
        else []
    )
    return Task(
        step,
        [data.train[index].token_ids for index in chosen],
        seeds_of_step(config, step),
        [data.demonstrations[index] for index in mixed],
    )


def take_step(
    config: PPOConfig,
    models: Models,
    learners: Learners,
    task: Task,
    *,
    beta: float,
    metrics: dict[str, float] | None = None,
) -> dict[str, float]:
    """One step: sample, score, learn. Returns its metrics; a dict for them is filled as they come.

    Raises InvariantViolated or TrainingError.
    """
    metrics = {} if metrics is None else metrics
    place = Sentence("PPO step {step}", step=task.step)
    # The value model learns alone first: a policy led by wrong values unlearns.
    policy_step = task.step - config.value.warmup_steps
    began = time.monotonic()
    requests = whole_distribution(task.prompts, task.seeds, config.max_new_tokens)
    try:
        completions = sample(models, models.policy, requests)
    except ModelError as error:
        raise TrainingError(error.message, where=place, hint=error.hint) from error
    generated = time.monotonic()

    examples = as_examples(task.prompts, completions)
    minibatches = [
        micro_batches(examples, range(part, len(examples), config.minibatches), config.micro_tokens)
        for part in range(min(config.minibatches, len(examples)))
    ]
    visited = [group for groups in minibatches for group in groups]
    rollout = score(models, models.policy, completions, examples, visited)
    final = rollout.scores - config.unended_penalty * ~rollout.ended
    metrics |= {
        "reward": float(rollout.scores.mean()),
        "score": float(final.mean()),
        "kl": float(rollout.kl.sum(dim=1).mean()),
        "kl_coefficient": beta,
        "entropy": rollout.entropy,
        "length": statistics.fmean(rollout.lengths),
        "ended": float(rollout.ended.float().mean()),
        "sampler_gap": float((rollout.logprobs - rollout.sampler_logprobs)[rollout.mask].abs().mean()),
    }
    if len(models.reward.members) > 1:
        metrics["reward_spread"] = float(rollout.spread.mean())
    check_rollout(rollout, place, kl_limit=config.kl.limit)
    check_sampler(rollout, place)
    if policy_step <= 0:
        check_start(rollout, place)
    rewards = token_rewards(final, rollout.kl, rollout.mask, beta)
    advantages, returns = generalised_advantages(
        rewards, rollout.values, rollout.mask, gamma=1.0, lam=config.lam
    )
    targets = Targets(rollout, whiten(advantages, rollout.mask), returns)
    scored = time.monotonic()

    set_rate(learners.policy, cosine(policy_step, config.steps, warmup=config.warmup_steps, floor=1.0))
    made: list[dict[str, float]] = []
    for epoch in range(config.inner_epochs):
        for part, groups in enumerate(minibatches):
            news = {"value_loss": value_gradients(models, targets, groups, config.value.clip)}
            update(learners.value, news["value_loss"], max_norm=config.max_norm, where=place)
            if policy_step >= 0:
                untouched = epoch == 0 and part == 0
                news |= policy_gradients(models, targets, groups, config.clip, place if untouched else "")
                mixed = task.demonstrations[part :: len(minibatches)]
                if mixed:
                    news["mix_loss"] = demonstration_gradients(models, mixed, config)
                loss = news["policy_loss"] + config.mix.coefficient * news.get("mix_loss", 0.0)
                news["gradient_norm"] = update(learners.policy, loss, max_norm=config.max_norm, where=place)
                if models.average:
                    models.average.follow(models.policy, config.average.decay)
            made.append(news)
    updated = time.monotonic()

    metrics |= {key: statistics.fmean(news[key] for news in made if key in news) for key in made[0]}
    metrics |= {
        "seconds_generate": generated - began,
        "seconds_score": scored - generated,
        "seconds_update": updated - scored,
    }
    return metrics


@dataclass(frozen=True, slots=True)
class Targets:
    """A rollout with what is learnt from it. advantages, returns: (batch, T)."""

    rollout: Rollout
    advantages: Tensor
    returns: Tensor

    def tokens(self, groups: Sequence[Sequence[int]]) -> int:
        """Completion tokens of a minibatch, in all processes."""
        return sum(self.rollout.lengths[index] for group in groups for index in group)


def policy_gradients(
    models: Models, targets: Targets, groups: Sequence[Sequence[int]], clip: float, untouched: str
) -> dict[str, float]:
    """Add the gradient of the clipped loss, a mean over a minibatch's tokens; returns loss, ratio, share clipped.

    untouched: where this is, when no update has come between scoring and now; the ratio is then checked to be 1.
    """
    rollout = targets.rollout
    tokens = targets.tokens(groups)
    loss = ratio = clipped = 0.0
    for group in share(groups, len):
        batch = flatten([rollout.examples[index] for index in group], models.model.device)
        rows = RowView(group, [rollout.lengths[index] for index in group])
        logprobs = models.policy.token_scores(batch).logprobs.cpu()
        part = clipped_policy_loss(logprobs, rows.take(rollout.logprobs), rows.take(targets.advantages), clip)
        (part.loss / tokens).backward()  # type: ignore[no-untyped-call]
        if untouched:
            check_first_ratio(part.ratio, untouched)
        loss += part.loss.item() / tokens
        ratio += float(part.ratio.sum()) / tokens
        clipped += float(part.clipped) * len(part.ratio) / tokens
    loss, ratio, clipped = sum_scalars(loss, ratio, clipped)
    return {"policy_loss": loss, "ratio": ratio, "clip_fraction": clipped}


def value_gradients(models: Models, targets: Targets, groups: Sequence[Sequence[int]], clip: float) -> float:
    """Add the gradient of the clipped squared error, a mean over a minibatch's tokens; returns it."""
    model, rollout = models.model, targets.rollout
    tokens = targets.tokens(groups)
    loss = 0.0
    for group in share(groups, len):
        batch = flatten([rollout.examples[index] for index in group], model.device)
        rows = RowView(group, [rollout.lengths[index] for index in group])
        values = models.value.at(model, batch.token_ids, batch.layout, batch.scored).cpu()
        error = clipped_value_loss(values, rows.take(rollout.values), rows.take(targets.returns), clip)
        (error / tokens).backward()  # type: ignore[no-untyped-call]
        loss += error.item() / tokens
    return sum_scalars(loss)[0]


def demonstration_gradients(models: Models, examples: Sequence[Rendered], config: PPOConfig) -> float:
    """Add the gradient of `mix.coefficient` times the mean cross-entropy of the policy; returns the latter.

    Source: Ouyang et al. 2022 (2203.02155), equation 2, as a mean over tokens.
    """
    tokens = sum(sum(example.completion_mask[1:]) for example in examples)
    loss = 0.0
    for group in share(micro_batches(examples, range(len(examples)), config.micro_tokens), len):
        batch = flatten([examples[index] for index in group], models.model.device)
        part = -models.policy.token_scores(batch).logprobs.sum() / tokens
        (config.mix.coefficient * part).backward()  # type: ignore[no-untyped-call]
        loss += part.item()
    return sum_scalars(loss)[0]


def adapt_beta(beta: float, kl: float, config: KLConfig, batch: int) -> float:
    """The next KL coefficient, at most a fifth away. Source: Ziegler et al. 2019 (1909.08593), section 2.2."""
    if not config.target:
        return beta
    error = max(-0.2, min(0.2, kl / config.target - 1))
    return beta * (1 + error * min(1.0, batch / config.horizon))
