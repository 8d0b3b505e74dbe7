"""What stops a run, with a sentence that says what is wrong and a hint that says what to do."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tutelage.errors import InvariantViolated
from tutelage.training.invariants import Health, check_health, check_rollout, check_sampler


def refused(scene, says: str, **changes: torch.Tensor) -> None:
    with pytest.raises(InvariantViolated, match=says) as raised:
        check_rollout(replace(scene.roll(), **changes), "PPO step 3", kl_limit=20.0)
    assert raised.value.where == "PPO step 3"
    assert raised.value.hint


def test_a_rollout_of_the_sft_model_is_right(scene) -> None:
    check_rollout(scene.roll(), "PPO step 0", kl_limit=20.0)
    check_sampler(scene.roll(), "PPO step 0")


def test_a_policy_that_always_says_the_same(scene) -> None:
    refused(scene, "always says the same", entropies=torch.zeros_like(scene.roll().entropies))


def test_numbers_that_are_none(scene) -> None:
    refused(scene, "not finite", scores=scene.roll().scores / 0)
    refused(scene, "not finite", reference_logprobs=scene.roll().logprobs * float("nan"))


def test_a_kl_below_zero_beyond_its_noise(scene) -> None:
    logprobs = scene.roll().logprobs
    refused(scene, "no true KL is below zero", reference_logprobs=logprobs + 0.2)
    noise = torch.zeros_like(logprobs)
    noise[::2, 0], noise[1::2, 0] = 3.0, -2.8
    check_rollout(replace(scene.roll(), reference_logprobs=logprobs + noise), "here", kl_limit=20.0)


def test_a_kl_past_its_limit(scene) -> None:
    refused(scene, "past kl.limit = 20", reference_logprobs=scene.roll().logprobs - 10.0)


def after(health: Health, rewards: list[float], endings: list[float]) -> Health:
    for reward, ended in zip(rewards, endings, strict=True):
        health = health.after(reward, ended)
    return health


def test_a_reward_that_collapses() -> None:
    check_health(after(Health(0.5), [-5.0] * 4, [0.5] * 4), "here")
    check_health(after(Health(0.5), [-5.0] + [0.0] * 5, [0.5] * 6), "here")
    with pytest.raises(InvariantViolated, match="reward has collapsed"):
        check_health(after(Health(0.5), [0.0] + [-1.2] * 5, [0.5] * 6), "here")


def test_answers_that_no_longer_end() -> None:
    check_health(after(Health(0.1), [0.0] * 5, [0.0] * 5), "an SFT model that hardly ends either")
    with pytest.raises(InvariantViolated, match="answers no longer end: 10% by themselves"):
        check_health(after(Health(0.8), [0.0] * 5, [0.1] * 5), "here")
