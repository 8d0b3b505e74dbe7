"""Where a policy stands: one sample for each prompt, scored by the reward model, beside the SFT model's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from tutelage.datasets.prompts import Prompt
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel
from tutelage.training.agreement import bootstrap_ratio
from tutelage.training.checkpoints import State, prefixed, section
from tutelage.training.reward_model import RewardModel, ValueModel
from tutelage.training.rollouts import as_examples, micro_batches, sample, score

POLICY, REFERENCE, VALUE, REWARD = "policy", "sft", "value", "reward"


@dataclass(frozen=True, slots=True)
class Models:
    """The base with its adapters and renderer, and the two scalar models on it."""

    loaded: LoadedModel
    value: ValueModel
    reward: RewardModel

    @property
    def model(self) -> CausalModel:
        return self.loaded.model

    def tensors(self) -> dict[str, torch.Tensor]:
        """What training changes, and the calibrated heads of the reward model."""
        tensors = {
            **prefixed("policy", self.model.adapter_tensors(POLICY)),
            **prefixed("value", self.model.adapter_tensors(VALUE)),
            **prefixed("value_head", self.value.head.state_dict()),
        }
        for member in self.reward.members:
            tensors |= prefixed(member.adapter, member.head.state_dict())
        return tensors

    def restore(self, state: State) -> None:
        """Put back what `tensors` gave."""
        self.model.set_adapter_tensors(POLICY, section("policy", state.tensors))
        self.model.set_adapter_tensors(VALUE, section("value", state.tensors))
        self.value.head.load_state_dict(section("value_head", state.tensors))
        for member in self.reward.members:
            member.head.load_state_dict(section(member.adapter, state.tensors))


def calibrate(models: Models, scores: Sequence[float]) -> None:
    """Shift and scale the reward, and with it the value, so that what got `scores` would score N(0, 1)."""
    models.reward.normalised(torch.tensor(scores))
    models.value.head.normalise(torch.tensor(scores))


@torch.inference_mode()
def sample_scores(
    models: Models,
    prompts: Sequence[Prompt],
    adapter: str,
    *,
    max_new_tokens: int,
    micro_tokens: int,
    seed: int,
) -> dict[str, list[float]]:
    """Reward, length in tokens, KL to the SFT model and end (1: by itself) of one sample for each prompt.

    The same seed gives the same draws whatever the adapter.
    """
    prompt_ids = [prompt.token_ids for prompt in prompts]
    completions = sample(
        models.model,
        adapter,
        prompt_ids,
        stop_ids=models.loaded.renderer.stop_ids,
        max_new_tokens=max_new_tokens,
        seeds=[seed * 1_000_003 + index for index in range(len(prompts))],
    )
    examples = as_examples(prompt_ids, completions)
    groups = micro_batches(examples, range(len(examples)), micro_tokens)
    rollout = score(
        models.model,
        completions,
        examples,
        groups,
        policy=adapter,
        reference=REFERENCE,
        value=models.value,
        reward=models.reward,
    )
    return {
        "reward": rollout.scores.tolist(),
        "length": rollout.mask.sum(dim=1).tolist(),
        "kl": rollout.kl.sum(dim=1).tolist(),
        "ended": rollout.ended.float().tolist(),
    }


def compare(
    before: dict[str, list[float]], after: dict[str, list[float]], *, unended_penalty: float, seed: int
) -> dict[str, Any]:
    """Means before and after on the same prompts; the gains in reward and in score with their intervals; wins.

    The score is what PPO maximises, KL apart: the reward, less the penalty where an answer did not end by itself.
    A win is a higher reward; an equal one counts half.
    """
    before, after = (side | {"score": _scores(side, unended_penalty)} for side in (before, after))
    means = {
        key: {"before": statistics.fmean(before[key]), "after": statistics.fmean(after[key])}
        for key in ("reward", "score", "length", "kl", "ended")
    }
    wins = [
        0.5 if new == old else float(new > old)
        for old, new in zip(before["reward"], after["reward"], strict=True)
    ]
    return {
        **means,
        "reward_gain": _gain(before["reward"], after["reward"], seed=seed),
        "score_gain": _gain(before["score"], after["score"], seed=seed),
        "win_rate": _mean(wins, seed=seed),
    }


def _scores(side: dict[str, list[float]], unended_penalty: float) -> list[float]:
    pairs = zip(side["reward"], side["ended"], strict=True)
    return [reward - unended_penalty * (1 - ended) for reward, ended in pairs]


def _gain(before: Sequence[float], after: Sequence[float], *, seed: int) -> dict[str, float]:
    return _mean([new - old for old, new in zip(before, after, strict=True)], seed=seed)


def _mean(values: Sequence[float], *, seed: int) -> dict[str, float]:
    """A mean over prompts with its 95 % interval."""
    low, high = bootstrap_ratio([(value, 1) for value in values], seed=seed)
    return {"value": statistics.fmean(values), "low": low, "high": high}
