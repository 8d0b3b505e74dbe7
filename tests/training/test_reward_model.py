"""The reward model at work: several members, read and written as they were."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from tutelage.errors import ModelError
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import LoadedModel, load_model
from tutelage.registry.version import check_adapter
from tutelage.rendering import Rendered
from tutelage.training.flat import flatten
from tutelage.training.reward_model import (
    RewardModel,
    ValueModel,
    load_reward_model,
    load_value_model,
    save_member,
    save_reward_model,
    score_completions,
)

DIALOGUES = [([5, 6, 7], [8, 2]), ([5], [9, 10, 11, 2]), ([12, 13], [2])]


def judge_of(home: Path, members: int) -> tuple[LoadedModel, RewardModel]:
    """Members whose adapters change something, each in its own way."""
    loaded = load_model("tiny", home)
    made = []
    for index in range(members):
        loaded.model.add_adapter(f"made-{index}", AdapterShape(2, 4), seed=index)
        for parameter in loaded.model.adapter_parameters(f"made-{index}"):
            torch.nn.init.normal_(parameter, std=0.05, generator=torch.Generator().manual_seed(index))
        made.append(ValueModel(f"made-{index}", ScalarHead(loaded.model.width, seed=index)))
    return loaded, RewardModel(tuple(made), temperature=1.5)


def test_members_are_read_as_they_were_written(home: Path, tmp_path: Path) -> None:
    loaded, judge = judge_of(home, 3)
    save_reward_model(loaded.model, judge, tmp_path / "adapter", base="tiny")
    check_adapter(tmp_path / "adapter")
    read = load_reward_model(loaded.model, tmp_path / "adapter")
    assert read.temperature == 1.5
    assert [member.adapter for member in read.members] == ["reward-0", "reward-1", "reward-2"]
    scores = score_completions(loaded.model, read, DIALOGUES)
    assert scores.shape == (3, 3)
    assert torch.equal(scores, score_completions(loaded.model, judge, DIALOGUES))
    assert scores.std(dim=1).min() > 1e-3


def test_a_folder_of_one_adapter_with_a_head_is_a_model_of_one_member(home: Path, tmp_path: Path) -> None:
    loaded, judge = judge_of(home, 1)
    save_member(loaded.model, judge.members[0], tmp_path, base="tiny")
    read = load_reward_model(loaded.model, tmp_path)
    assert read.temperature == 1.0
    assert torch.equal(
        score_completions(loaded.model, read, DIALOGUES), score_completions(loaded.model, judge, DIALOGUES)
    )


def test_the_value_model_starts_as_the_first_member(home: Path, tmp_path: Path) -> None:
    loaded, judge = judge_of(home, 2)
    save_reward_model(loaded.model, judge, tmp_path, base="tiny")
    value = load_value_model(loaded.model, tmp_path, name="value")
    batch = flatten([Rendered([5, 6, 7, 8, 2], [False, False, False, True, True])], loaded.model.device)
    values = value.at(loaded.model, batch.token_ids, batch.layout, torch.tensor([4]))
    assert torch.equal(values, judge.scores(loaded.model, batch)[:, 0])


def test_the_score_of_a_sequence_is_read_at_its_last_token(home: Path) -> None:
    loaded, judge = judge_of(home, 2)
    rows = [Rendered([*p, *c], [False] * len(p) + [True] * len(c)) for p, c in DIALOGUES]
    flat = judge.scores(loaded.model, flatten(rows, loaded.model.device))
    assert torch.allclose(flat, score_completions(loaded.model, judge, DIALOGUES), atol=1e-5)


def test_the_mean_is_normalised_and_keeps_the_members_apart(home: Path) -> None:
    loaded, judge = judge_of(home, 3)
    before = score_completions(loaded.model, judge, DIALOGUES)
    unit = before.mean(dim=1).std()
    scaled = judge.normalised(before.mean(dim=1))
    after = score_completions(loaded.model, scaled, DIALOGUES)
    assert abs(float(after.mean())) < 1e-5
    assert float(after.mean(dim=1).std()) == pytest.approx(1, abs=1e-4)
    assert torch.allclose(after.std(dim=1), before.std(dim=1) / unit, atol=1e-4)
    assert scaled.temperature == pytest.approx(1.5 / float(unit), rel=1e-4)


@pytest.mark.parametrize("content", ["{", "[]", json.dumps({"members": 1}), json.dumps({"members": "x"})])
def test_a_broken_description_is_said_plainly(home: Path, tmp_path: Path, content: str) -> None:
    (tmp_path / "reward.json").write_text(content)
    with pytest.raises(ModelError, match="cannot be read"):
        load_reward_model(load_model("tiny", home).model, tmp_path)


def test_a_missing_member_is_said_plainly(home: Path, tmp_path: Path) -> None:
    (tmp_path / "reward.json").write_text(json.dumps({"members": 1, "temperature": 1.0}))
    with pytest.raises(ModelError, match="cannot be read"):
        load_reward_model(load_model("tiny", home).model, tmp_path)
