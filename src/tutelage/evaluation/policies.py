"""Policies side by side: how much more of a reward each earns than the SFT model, and how far it went for it.

All answer the same prompts with the same seeds, several times each at temperature 1; a win is counted over all pairs
of a policy's and the SFT model's answers to a prompt, so no single draw of the SFT model favours them all.
`best-of-N` is the SFT model's own best of N answers by the reward model: a baseline without any training. The reward
is what the policies were trained on; the gold reward, of other data, is what they are judged by. Both are in
deviations of the SFT model's answers to these prompts. Left out: what the answers cost to make.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tutelage.datasets.prompts import Prompt
from tutelage.models.adapters import load_adapter
from tutelage.models.loading import LoadedModel, load_model
from tutelage.registry.version import WEIGHTS
from tutelage.training.actors import Models
from tutelage.training.overoptimisation import Standing
from tutelage.training.rollouts import as_examples, judge, micro_batches, sample, whole_distribution
from tutelage.training.standing import mean_interval, sample_scores
from tutelage.training.weights import Weights

SFT, CANDIDATE = "sft", "candidate"


@dataclass(frozen=True, slots=True, kw_only=True)
class Exam:
    """The prompts, the answers to each, how long they may be, and the seed of every draw."""

    prompts: Sequence[Prompt]
    answers: int
    max_new_tokens: int
    micro_tokens: int
    seed: int


def compare_policies(
    loaded: LoadedModel,
    exam: Exam,
    policies: Mapping[str, Path],
    *,
    start: Path | None,
    reward: Path,
    gold: Path | None,
    best_of: Sequence[int],
) -> dict[str, Any]:
    """A row for the SFT model, for each policy's folder, and for each size of best-of-n.

    The SFT model is the adapter `start`, or the base itself. A policy is an adapter, or a model of its own.
    Raises ModelError when a folder cannot be read or does not fit.
    """
    models = Models.assemble(loaded, start=start, reward=reward, gold=gold, average=False)
    before = _look(models, exam, models.reference)
    models.calibrate(before["reward"], before.get("gold", []))
    before = _look(models, exam, models.reference)

    def row(standing: Standing) -> dict[str, Any]:
        return summarise(standing, before, prompts=len(exam.prompts), seed=exam.seed)

    rows = {SFT: row(before)}
    for name, folder in policies.items():
        with _read(loaded, folder) as policy:
            rows[name] = row(_look(models, exam, policy))
    if best_of:
        for size, standing in best_of_n(models, exam, sorted(best_of)).items():
            rows[f"best-of-{size}"] = row(standing)
    return {"prompts": len(exam.prompts), "answers": exam.answers, "policies": rows}


@contextmanager
def _read(loaded: LoadedModel, folder: Path) -> Iterator[Weights]:
    """A policy's weights inside the block, computed in the base's dtype."""
    if folder.name == WEIGHTS:
        dtype = str(loaded.model.dtype).removeprefix("torch.")
        yield Weights(load_model(str(folder), folder.parent, dtype=dtype).model, None, [])
        return
    load_adapter(loaded.model, CANDIDATE, folder)
    try:
        yield Weights(loaded.model, CANDIDATE, [])
    finally:
        loaded.model.drop_adapter(CANDIDATE)


def _look(models: Models, exam: Exam, policy: Weights) -> Standing:
    """Of every prompt's answers, one prompt after the other."""
    return sample_scores(
        models,
        policy,
        [prompt for prompt in exam.prompts for _ in range(exam.answers)],
        max_new_tokens=exam.max_new_tokens,
        micro_tokens=exam.micro_tokens,
        seed=exam.seed,
    )


def best_of_n(models: Models, exam: Exam, sizes: Sequence[int]) -> dict[int, Standing]:
    """The SFT model's best of the first n answers to each prompt, by the reward, for every n of `sizes`.

    The KL is the exact one: log n - (n - 1) / n. Source: Gao et al. 2022 (2210.10760), section 2.2.
    """
    count = max(sizes)
    prompt_ids = [prompt.token_ids for prompt in exam.prompts for _ in range(count)]
    seeds = [(exam.seed + 1) * 1_000_003 + index for index in range(len(prompt_ids))]
    completions = sample(models, models.reference, whole_distribution(prompt_ids, seeds, exam.max_new_tokens))
    examples = as_examples(prompt_ids, completions)
    groups = micro_batches(examples, range(len(examples)), exam.micro_tokens)
    rewards = judge(models, models.reward, examples, groups).view(-1, count)
    golds = None if models.gold is None else judge(models, models.gold, examples, groups)
    found: dict[int, Standing] = {}
    for size in sizes:
        picks = (rewards[:, :size].argmax(dim=1) + count * torch.arange(len(exam.prompts))).tolist()
        found[size] = {
            "reward": rewards.flatten()[picks].tolist(),
            "kl": [math.log(size) - (size - 1) / size] * len(picks),
            "length": [float(len(completions[pick].token_ids)) for pick in picks],
            "ended": [float(completions[pick].finish_reason == "stop") for pick in picks],
        }
        if golds is not None:
            found[size]["gold"] = golds[picks].tolist()
    return found


def summarise(after: Standing, before: Standing, *, prompts: int, seed: int) -> dict[str, Any]:
    """Means, those of the rewards with 95 % intervals, and how often each reward is above the SFT model's.

    Each side holds as many answers to every prompt, one prompt after the other. Intervals are over prompts.
    """
    row: dict[str, Any] = {key: statistics.fmean(after[key]) for key in ("kl", "length", "ended")}
    for key in ("reward", "gold"):
        if key in after:
            mine, theirs = (torch.tensor(side[key]).view(prompts, -1) for side in (after, before))
            row[key] = mean_interval(mine.mean(dim=1).tolist(), seed=seed)
            above = torch.sign(mine[:, :, None] - theirs[:, None, :])
            row[f"{key}_win_rate"] = mean_interval((above / 2 + 0.5).mean(dim=(1, 2)).tolist(), seed=seed)
    return row
