"""Checkpoints: whole or not there, the newest one found, a broken one named."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from tutelage.errors import ModelError, TrainingError
from tutelage.training import checkpoints
from tutelage.training.checkpoints import State, load_newest, pack_optimizer, save, unpack_optimizer
from tutelage.training.optimizer import adamw, update


def test_the_newest_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    save(tmp_path, State(10, {"a": torch.full((2,), 3.0)}, {"beta": 0.1}))
    state = load_newest(tmp_path)
    assert state is not None
    assert (state.step, state.scalars, state.tensors["a"].tolist()) == (10, {"beta": 0.1}, [3.0, 3.0])
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000010"]


def test_none_without_a_checkpoint(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(TrainingError, match="No space left") as raised:
        save(tmp_path, State(10, {"a": torch.ones(2)}))
    assert "--resume" in raised.value.hint
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint-000005"]


def test_a_draft_from_a_crash_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    (tmp_path / ".checkpoint-000010.partial").mkdir()
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 5


@pytest.mark.parametrize("file", ["state.safetensors", "state.json"])
def test_a_truncated_checkpoint_is_named(tmp_path: Path, file: str) -> None:
    save(tmp_path, State(5, {"a": torch.ones(200)}))
    broken = tmp_path / "checkpoint-000005" / file
    broken.write_bytes(broken.read_bytes()[:-5])
    with pytest.raises(ModelError, match="broken") as raised:
        load_newest(tmp_path)
    assert "checkpoint-000005" in raised.value.where


def test_an_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def steps(weight: nn.Parameter, optimizer: torch.optim.Optimizer, first: int, last: int) -> None:
        for step in range(first, last):
            loss = ((weight - step) ** 2).sum()
            loss.backward()
            update(optimizer, loss.item(), max_norm=1.0, where="")

    straight = nn.Parameter(torch.zeros(3))
    steps(straight, adamw([([straight], 0.1)]), 0, 6)

    first_half = nn.Parameter(torch.zeros(3))
    optimizer = adamw([([first_half], 0.1)])
    steps(first_half, optimizer, 0, 3)
    kept = pack_optimizer(optimizer)
    second_half = nn.Parameter(first_half.detach().clone())
    resumed = adamw([([second_half], 0.1)])
    unpack_optimizer(resumed, kept)
    steps(second_half, resumed, 3, 6)
    assert torch.equal(straight, second_half)
