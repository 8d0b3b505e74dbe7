"""Where a policy stands: one sample for each prompt, scored by the reward model, beside the SFT model's."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

import torch

from tutelage.datasets.prompts import Prompt
from tutelage.training.actors import Models
from tutelage.training.agreement import bootstrap_ratio
from tutelage.training.overoptimisation import Standing
from tutelage.training.rollouts import as_examples, judge, micro_batches, sample, score, whole_distribution
from tutelage.training.weights import Weights


@torch.inference_mode()
def sample_scores(
    models: Models,
    policy: Weights,
    prompts: Sequence[Prompt],
    *,
    max_new_tokens: int,
    micro_tokens: int,
    seed: int,
) -> Standing:
    """One sample for each prompt: reward, KL to the SFT model, entropy a token, length in tokens, end (1: by itself).

    With a gold reward model, its word too. The same seed gives the same draws whoever writes.
    """
    prompt_ids = [prompt.token_ids for prompt in prompts]
    seeds = [seed * 1_000_003 + index for index in range(len(prompts))]
    completions = sample(models, policy, whole_distribution(prompt_ids, seeds, max_new_tokens))
    examples = as_examples(prompt_ids, completions)
    groups = micro_batches(examples, range(len(examples)), micro_tokens)
    rollout = score(models, policy, completions, examples, groups)
    standing = {
        "reward": rollout.scores.tolist(),
        "kl": rollout.kl.sum(dim=1).tolist(),
        "entropy": ((rollout.entropies * rollout.mask).sum(dim=1) / rollout.mask.sum(dim=1)).tolist(),
        "length": rollout.mask.sum(dim=1).tolist(),
        "ended": rollout.ended.float().tolist(),
    }
    if models.gold is not None:
        standing["gold"] = judge(models, models.gold, examples, groups).tolist()
    return standing


def compare(before: Standing, after: Standing, *, unended_penalty: float, seed: int) -> dict[str, Any]:
    """Means before and after on the same prompts; the gains in reward and in score with their intervals; wins.

    The score is what PPO maximises, KL apart: the reward, less the penalty where an answer did not end by itself.
    A win is a higher reward; an equal one counts half. With a gold reward model, its gain and its wins too.
    """
    before, after = (side | {"score": _scores(side, unended_penalty)} for side in (before, after))
    result: dict[str, Any] = {
        key: {"before": statistics.fmean(before[key]), "after": statistics.fmean(after[key])}
        for key in before
        if key != "entropy"
    }
    for key in ("reward", "score", "gold"):
        if key in before:
            gains = [new - old for old, new in zip(before[key], after[key], strict=True)]
            result[f"{key}_gain"] = mean_interval(gains, seed=seed)
    result["win_rate"] = wins(before["reward"], after["reward"], seed=seed)
    if "gold" in before:
        result["gold_win_rate"] = wins(before["gold"], after["gold"], seed=seed)
    return result


def wins(old: Sequence[float], new: Sequence[float], *, seed: int) -> dict[str, float]:
    """How often the new reward is higher, an equal one counting half, with its 95 % interval over prompts."""
    each = [0.5 if a == b else float(a > b) for a, b in zip(new, old, strict=True)]
    return mean_interval(each, seed=seed)


def mean_interval(values: Sequence[float], *, seed: int) -> dict[str, float]:
    """A mean over prompts with its 95 % interval."""
    low, high = bootstrap_ratio([(value, 1) for value in values], seed=seed)
    return {"value": statistics.fmean(values), "low": low, "high": high}


def _scores(side: Standing, unended_penalty: float) -> list[float]:
    pairs = zip(side["reward"], side["ended"], strict=True)
    return [reward - unended_penalty * (1 - ended) for reward, ended in pairs]
