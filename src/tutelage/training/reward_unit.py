"""The unit of a reward: what scores with mean 0 and deviation 1."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch

from tutelage.datasets.preference import PreferenceExample
from tutelage.models.adapters import load_adapter
from tutelage.models.generation import Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel
from tutelage.training.reward_model import RewardModel, ValueModel, score_completions

Dialogues = list[tuple[list[int], list[int]]]
"""(prompt ids, completion ids) each."""


def own_answers(
    loaded: LoadedModel, start: Path, examples: Sequence[PreferenceExample], max_new_tokens: int, *, seed: int
) -> Dialogues | None:
    """The SFT model's own answers at temperature 1 to the prompts; None when fewer than two leave room for one."""
    model = loaded.model
    room = model.context_length - max_new_tokens
    prompts = [each.prompt_ids for each in examples if len(each.prompt_ids) <= room]
    if len(prompts) < 2:
        return None
    requests = [
        Request(prompt_ids=prompt, max_tokens=max_new_tokens, seed=seed * 1_000_003 + index)
        for index, prompt in enumerate(prompts)
    ]
    load_adapter(model, "answering", start)
    with model.using("answering"):
        answers = complete(model, loaded.renderer.stop_ids, requests)
    model.drop_adapter("answering")
    return [(prompt, list(each.token_ids)) for prompt, each in zip(prompts, answers, strict=True)]


def candidates(examples: Sequence[PreferenceExample]) -> Dialogues:
    """People's candidates: what is at hand without an SFT model."""
    return [(each.prompt_ids, ids) for each in examples for ids in each.completions]


def in_unit(model: CausalModel, members: tuple[ValueModel, ...], dialogues: Dialogues) -> RewardModel:
    """Give every member, and then their mean, mean 0 and deviation 1 on these dialogues."""
    reward = RewardModel(members)
    columns = score_completions(model, reward, dialogues).unbind(dim=1)
    standard = [
        (column - column.mean()) * member.head.normalise(column)
        for column, member in zip(columns, members, strict=True)
    ]
    return reward.normalised(torch.stack(standard).mean(dim=0))
