"""PPO's step and run by their parts: what a loss is held to, which checks are asked, on what a run is judged."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.dialogue import Dialogue
from tutelage.errors import InvariantViolated
from tutelage.training import ppo
from tutelage.training.actors import POLICY, Learners, Models
from tutelage.training.flat import flatten
from tutelage.training.losses import clipped_policy_loss, clipped_value_loss
from tutelage.training.metrics import Run
from tutelage.training.overoptimisation import Standing
from tutelage.training.ppo import Targets, Task, policy_gradients, take_step, train_ppo, value_gradients
from tutelage.training.ppo_recipe import GoldConfig, KLConfig, PPOConfig, ValueConfig

CONFIG = PPOConfig(
    model="tiny",
    steps=3,
    prompts_per_step=4,
    minibatches=2,
    max_new_tokens=4,
    held_out=0.5,
    value=ValueConfig(warmup_steps=1),
    gold=GoldConfig(every=2),
)


def test_an_update_is_held_to_the_policy_and_the_values_of_its_rollout(scene) -> None:
    """Means over tokens, clipped against the numbers of the rollout, which here lie half a nat and half a unit away."""
    rollout, models = scene.roll(), scene.models
    mask, tokens = rollout.mask, sum(rollout.lengths)
    old = replace(rollout, logprobs=rollout.logprobs - 0.5, values=rollout.values - 0.5)
    advantages = torch.randn(mask.shape, generator=torch.Generator().manual_seed(0))
    targets = Targets(old, advantages, rollout.values + advantages)
    everything = [list(range(len(scene.examples)))]
    batch = flatten(scene.examples, models.model.device)

    parameters = models.model.adapter_parameters(POLICY)
    logprobs = models.policy.token_scores(batch).logprobs
    policy = clipped_policy_loss(logprobs, old.logprobs[mask], advantages[mask], 0.2)
    expected = torch.autograd.grad(policy.loss / tokens, parameters)
    found = policy_gradients(models, targets, everything, 0.2, "")
    assert found["ratio"] == pytest.approx(math.exp(0.5), rel=1e-3)
    assert found["policy_loss"] == pytest.approx(policy.loss.item() / tokens, abs=1e-4)
    assert found["clip_fraction"] == pytest.approx(float(policy.clipped), abs=1e-6)
    assert 0 < found["clip_fraction"] < 1
    assert all(torch.allclose(p.grad, g, atol=1e-5) for p, g in zip(parameters, expected, strict=True))

    head = models.value.head.weight
    values = models.value.at(models.model, batch.token_ids, batch.layout, batch.scored)
    error = clipped_value_loss(values, old.values[mask], targets.returns[mask], 0.2) / tokens
    (gradient,) = torch.autograd.grad(error, [head])
    assert value_gradients(models, targets, everything, 0.2) == pytest.approx(error.item(), abs=1e-4)
    assert head.grad is not None
    assert torch.allclose(head.grad, gradient, atol=1e-4)


def test_a_step_asks_whether_its_numbers_can_be_true(scene, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def noted(name: str) -> Callable[..., None]:
        return lambda *args, **settings: asked.append(name)

    checks = ("check_rollout", "check_sampler", "check_start", "check_first_ratio")
    for name in checks:
        monkeypatch.setattr(ppo, name, noted(name))
    learners = Learners.of(scene.models, policy_rate=1e-3, value_rate=1e-3)
    always, start, ratio = list(checks[:2]), checks[2], checks[3]
    # the value model learns alone; the policy's first step; a step of a policy that has learnt
    for number, expected in ((0, [*always, start]), (1, [*always, start, ratio]), (2, [*always, ratio])):
        asked.clear()
        take_step(
            CONFIG, scene.models, learners, Task(number, scene.prompts[:4], list(range(4)), []), beta=0.05
        )
        assert asked == expected


def standing_still(monkeypatch: pytest.MonkeyPatch, **metrics: float) -> None:
    """From now on, steps change nothing."""

    def take_step(*given: Any, metrics: dict[str, float], **settings: Any) -> None:
        metrics.update(made)

    seconds = dict.fromkeys(("seconds_generate", "seconds_score", "seconds_update"), 0.0)
    made = {"reward": 0.0, "ended": 1.0, "kl": 0.0, **seconds, **metrics}
    monkeypatch.setattr(ppo, "take_step", take_step)


def test_a_run_is_judged_on_the_same_draws_of_prompts_it_never_saw(
    home: Path,
    prompts: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A policy that stays the SFT model gains nothing at all, and is what the run gives."""
    looks: list[tuple[int, set[str], Standing]] = []
    units: list[tuple[Any, Any]] = []
    look = ppo.sample_scores

    def spy(models: Models, policy: Any, prompts: list[Any], **settings: Any) -> Standing:
        found = look(models, policy, prompts, **settings)
        looks.append((settings["seed"], {str(prompt.token_ids) for prompt in prompts}, found))
        return found

    standing_still(monkeypatch)
    monkeypatch.setattr(ppo, "sample_scores", spy)
    monkeypatch.setattr(Models, "calibrate", lambda models, *known: units.append(known))
    run = Run.open(tmp_path / "run", "ppo", CONFIG.model_dump(), resume=False)
    evaluation = train_ppo(CONFIG, prompts, run, home, start=stages[0], reward=stages[1], gold=stages[1])[
        "evaluation"
    ]
    assert [seed for seed, _, _ in looks] == [1, 2, 3, 3, 3, 2], "at step 2, and at the last"
    assert units == [(looks[0][2]["reward"], looks[0][2]["gold"])]
    trained, held_out, watched = (prompts for _, prompts, _ in looks[:3])
    assert not trained & (held_out | watched)
    assert not held_out & watched
    assert evaluation["reward_gain"]["value"] == pytest.approx(0, abs=1e-4)
    assert evaluation["over_optimisation"]["best_step"] == 0


def test_a_run_whose_reward_collapses_ends_there(
    home: Path,
    prompts: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    standing_still(monkeypatch, reward=-2.0)
    config = CONFIG.model_copy(update={"steps": 9})
    run = Run.open(tmp_path / "run", "ppo", config.model_dump(), resume=False)
    with pytest.raises(InvariantViolated, match="the reward has collapsed") as raised:
        train_ppo(config, prompts, run, home, start=stages[0], reward=stages[1])
    assert raised.value.where == "PPO step 4"
    rows = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["reward"]) for row in rows] == [(step, -2.0) for step in range(5)]


def test_a_step_that_is_refused_has_told_what_it_saw(scene) -> None:
    config = CONFIG.model_copy(update={"kl": KLConfig(limit=1e-9)})
    learners = Learners.of(scene.models, policy_rate=1e-2, value_rate=1e-3)
    take_step(config, scene.models, learners, Task(1, scene.prompts[:4], list(range(4)), []), beta=0.05)
    seen: dict[str, float] = {}
    with pytest.raises(InvariantViolated, match="has drifted"):
        take_step(
            config,
            scene.models,
            learners,
            Task(2, scene.prompts[:4], list(range(4)), []),
            beta=0.05,
            metrics=seen,
        )
    assert seen["kl"] > 1e-9
    assert {"reward", "entropy", "length", "ended", "sampler_gap"} <= set(seen)
    assert "policy_loss" not in seen
