"""Fine-tuning on what cannot work: a plain sentence, the place, the way out, and nothing half-written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.errors import ConfigError, ModelError, TrainingError
from tutelage.models.adapters import AdapterShape, save_adapter
from tutelage.models.loading import load_model
from tutelage.registry import Registry, publish_run
from tutelage.training.checkpoints import State, load_newest, save
from tutelage.training.job import SCHEMAS, Stage
from tutelage.training.metrics import Run
from tutelage.training.reward import train_reward
from tutelage.training.sft import SFTConfig, train_sft

SMALL: dict[str, Any] = {"model": "tiny", "batch_tokens": 200, "held_out": 0.2, "rank": 2, "alpha": 4}


def begin(folder: Path, config: SFTConfig) -> Run:
    return Run.open(folder, "sft", config.model_dump(), resume=True)


def test_a_loss_that_is_no_number_stops_and_leaves_the_checkpoint_from_before(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    config = SFTConfig(**SMALL, checkpoint_every=1, learning_rate=1e25)
    with pytest.raises(TrainingError, match="the loss is nan") as raised:
        train_sft(config, demonstrations, begin(tmp_path, config), home)
    assert raised.value.where == "SFT step 1"
    assert "lower learning rate" in raised.value.hint
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 1
    assert all(tensor.isfinite().all() for tensor in state.tensors.values())
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"] is None) for row in rows] == [(0, False), (1, True)]
    assert "NaN" not in (tmp_path / "metrics.jsonl").read_text(), "which is no JSON"
    assert not (tmp_path / "manifest.json").exists()
    assert not (tmp_path / "adapter").exists()


def test_a_last_step_that_drives_the_weights_apart_finishes_no_run(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    config = SFTConfig(**SMALL, max_steps=1, learning_rate=1e25)
    run = begin(tmp_path, config)
    with pytest.raises(TrainingError, match="measured in the end is no number") as raised:
        train_sft(config, demonstrations, run, home)
    assert "lower learning rate" in raised.value.hint
    assert not run.finished


def test_a_disk_that_fills_up_costs_no_step_that_was_kept(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path, files_of_at_most: Any
) -> None:
    config = SFTConfig(**SMALL, checkpoint_every=2)
    whole = train_sft(config, demonstrations, begin(tmp_path / "whole", config), home)
    run = begin(tmp_path / "full", config)
    with files_of_at_most(20_000), pytest.raises(TrainingError, match="cannot be written") as raised:
        train_sft(config, demonstrations, run, home)
    assert raised.value.where == str(run.folder / "checkpoint-000002")
    assert list(run.folder.glob("*checkpoint*")) == []
    resumed = train_sft(config, demonstrations, begin(tmp_path / "full", config), home)
    assert resumed == whole


def test_a_disk_that_is_full_at_the_end_leaves_no_finished_run(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path, files_of_at_most: Any
) -> None:
    config = SFTConfig(**SMALL, checkpoint_every=2, max_steps=2)  # so that there is no checkpoint
    whole = train_sft(config, demonstrations, begin(tmp_path / "whole", config), home)
    run = begin(tmp_path / "full", config)
    with files_of_at_most(10_000), pytest.raises(ModelError, match="adapter cannot be written") as raised:
        train_sft(config, demonstrations, run, home)
    assert raised.value.where == str(run.folder / "adapter")
    assert not run.finished
    with pytest.raises(ModelError, match="no manifest"):
        publish_run(Registry(tmp_path), run.folder)
    assert train_sft(config, demonstrations, begin(tmp_path / "full", config), home) == whole


def test_room_for_more_than_the_context_holds_is_refused(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    config = SFTConfig(**SMALL, max_tokens=4096)
    with pytest.raises(ConfigError, match="max_tokens is 4096, and the context of tiny holds 1024") as raised:
        train_sft(config, demonstrations, begin(tmp_path, config), home)
    assert "1024" in raised.value.hint


def test_what_is_too_long_loses_whole_turns_or_is_left_out_and_both_are_counted(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    long = Message("assistant", "x" * 300)
    cut = Dialogue((Message("user", "a"), Message("assistant", "b"), Message("user", "c"), long))
    out = Dialogue((Message("user", "a"), long))
    config = SFTConfig(**SMALL | {"held_out": 0}, max_tokens=200)
    made = train_sft(config, [*demonstrations, cut, out], begin(tmp_path, config), home)["evaluation"]
    assert (made["shortened"], made["left_out"]) == (1, 1)
    assert made["dialogues"] == len(demonstrations) + 1


@torch.no_grad()
def test_an_adapter_that_is_cut_off_is_named(
    home: Path, demonstrations: list[Dialogue], tmp_path: Path
) -> None:
    other = load_model("tiny", home).model
    other.add_adapter("sft", AdapterShape(2, 4), seed=0)
    save_adapter(other, "sft", tmp_path / "adapter", base="tiny")
    file = tmp_path / "adapter" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    config = SFTConfig(**SMALL)
    with pytest.raises(ModelError, match="cannot be read") as raised:
        train_sft(config, demonstrations, begin(tmp_path / "run", config), home, start=tmp_path / "adapter")
    assert raised.value.where == str(tmp_path / "adapter")


@pytest.mark.parametrize("stage", ["sft", "reward"])
def test_a_checkpoint_of_other_content_is_refused_with_a_way_out(
    stage: Stage, home: Path, demonstrations: list[Dialogue], comparisons: list[Comparison], tmp_path: Path
) -> None:
    config = SCHEMAS[stage].model_validate({"model": "tiny", "batch_tokens": 200})
    run = Run.open(tmp_path, stage, config.model_dump(), resume=False)
    save(run.folder, State(1, {"head/weight": torch.ones(3)}))
    train: Any = train_sft if stage == "sft" else train_reward
    with pytest.raises(ModelError, match="does not hold what this version") as raised:
        train(config, demonstrations if stage == "sft" else comparisons, run, home)
    assert raised.value.where == str(run.folder)
    assert "checkpoint-*" in raised.value.hint
