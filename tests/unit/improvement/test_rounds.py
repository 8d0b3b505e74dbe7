"""A round's recipe: one base, and prompts that no stage has seen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from tutelage.config import check
from tutelage.errors import ConfigError
from tutelage.improvement import ImproveConfig, rounds
from tutelage.registry import ModelVersion

HELD_OUT = {name: {"held_out": 0.3} for name in ("sft", "reward", "ppo")}


def test_dpo_keeps_from_what_the_reward_model_keeps_from() -> None:
    """A tick on the page asks for DPO with no settings at all."""
    config = check({**HELD_OUT, "dpo": {}}, ImproveConfig)
    assert config.dpo is not None
    assert config.dpo.held_out == 0.3
    assert check(HELD_OUT, ImproveConfig).dpo is None


@pytest.mark.parametrize("stage", ["sft", "reward", "dpo"])
def test_no_stage_trains_on_the_prompts_that_judge_the_round(stage: str) -> None:
    with pytest.raises(ConfigError, match=r"ppo\.held_out may not be larger"):
        check({**HELD_OUT, stage: {"held_out": 0.2}}, ImproveConfig)


@pytest.mark.parametrize("stage", ["sft", "ppo", "dpo"])
def test_no_stage_trains_the_base_that_all_share(stage: str) -> None:
    with pytest.raises(ConfigError, match="a round trains adapters"):
        check({**HELD_OUT, stage: {"held_out": 0.3, "full": True}}, ImproveConfig)


@pytest.mark.parametrize("stage", ["sft", "reward", "ppo", "dpo"])
def test_all_stages_share_one_base(stage: str) -> None:
    with pytest.raises(ConfigError, match="share one base"):
        check({"model": "tiny", stage: {"model": "builtin"}}, ImproveConfig)
    assert getattr(check({"model": "tiny", "dpo": {}}, ImproveConfig), stage).model == "tiny"


def version(**fields: object) -> ModelVersion:
    parts = dict.fromkeys(field.name for field in dataclasses.fields(ModelVersion))
    return ModelVersion(**{**parts, "name": "v3", "model": "tiny", **fields})  # type: ignore[arg-type]


def test_the_version_before_is_the_rival_whatever_it_stands_on() -> None:
    adapter, weights = Path("adapter"), Path("weights")
    assert rounds._rival(None, "tiny") is None
    assert rounds._rival(version(), "tiny") is None, "the base as it came"
    assert rounds._rival(version(weights=weights), "v3") is None, "it is the base of this round"
    assert rounds._rival(version(adapter=adapter), "tiny") == adapter
    for other in (version(adapter=adapter, model="builtin"), version(weights=weights)):
        assert rounds._rival(other, "tiny") is other
