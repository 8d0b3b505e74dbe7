"""Checkpoints: whole or not there, the newest one found, a broken one named."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tutelage.errors import ModelError, TrainingError
from tutelage.training import checkpoints
from tutelage.training.checkpoints import (
    State,
    copied,
    digest_of,
    load_newest,
    pack_optimizer,
    resuming,
    save,
    unpack_optimizer,
)
from tutelage.training.distributed import world
from tutelage.training.optimizer import AdamW, update


def test_the_newest_checkpoint_is_what_was_saved(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    save(tmp_path, State(10, {"a": torch.full((2,), 3.0)}, {"beta": 0.1}))
    state = load_newest(tmp_path)
    assert state is not None
    assert (state.step, state.scalars, state.tensors["a"].tolist()) == (10, {"beta": 0.1}, [3.0, 3.0])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_two_are_kept(tmp_path: Path) -> None:
    for step in (5, 10, 15, 20):
        save(tmp_path, State(step, {"a": torch.ones(2)}))
    assert names(tmp_path) == ["checkpoint-000015", "checkpoint-000020"]


def test_steps_are_numbers_not_words(tmp_path: Path) -> None:
    for step in (999_999, 1_000_000):
        save(tmp_path, State(step, {"a": torch.ones(2)}))
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 1_000_000


def test_none_without_a_checkpoint(tmp_path: Path) -> None:
    assert load_newest(tmp_path) is None


def test_a_full_disk_leaves_the_last_one(tmp_path: Path, files_of_at_most: Any) -> None:
    for step in (5, 10):
        save(tmp_path, State(step, {"a": torch.ones(2)}))
    with files_of_at_most(1000), pytest.raises(TrainingError, match="cannot be written") as raised:
        save(tmp_path, State(15, {"a": torch.ones(2000)}))
    assert "--resume" in raised.value.hint
    assert raised.value.where == str(tmp_path / "checkpoint-000015")
    assert names(tmp_path) == ["checkpoint-000010"]
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 10


def test_a_draft_from_a_crash_is_not_taken_for_a_checkpoint(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    (tmp_path / ".checkpoint-000010.partial").mkdir()
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 5
    save(tmp_path, State(15, {"a": torch.ones(2)}))
    assert names(tmp_path) == ["checkpoint-000005", "checkpoint-000015"]


def cut(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-5])


def flip(file: Path) -> None:
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


def empty(file: Path) -> None:
    file.write_bytes(b"")


DAMAGE = pytest.mark.parametrize("damage", [cut, flip, empty, Path.unlink])
FILE = pytest.mark.parametrize("file", ["state.safetensors", "state.json"])


@FILE
@DAMAGE
def test_a_broken_checkpoint_is_passed_over_for_the_one_before(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, file: str, damage: Callable[[Path], None]
) -> None:
    for step in (5, 10):
        save(tmp_path, State(step, {"a": torch.full((200,), float(step))}))
    damage(tmp_path / "checkpoint-000010" / file)
    state = load_newest(tmp_path)
    assert state is not None
    assert (state.step, state.tensors["a"][0]) == (5, 5.0)
    assert "checkpoint-000010 is broken" in caplog.text


@FILE
@DAMAGE
def test_where_all_are_broken_they_are_named(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    for step in (5, 10):
        save(tmp_path, State(step, {"a": torch.ones(200)}))
        damage(tmp_path / f"checkpoint-{step:06d}" / file)
    with pytest.raises(ModelError, match=r"checkpoint-000010: .*checkpoint-000005: ") as raised:
        load_newest(tmp_path)
    assert raised.value.where == str(tmp_path)
    assert "--resume" in raised.value.hint


def test_the_good_one_stays_until_the_broken_one_is_made_again(tmp_path: Path, files_of_at_most: Any) -> None:
    for step in (5, 10):
        save(tmp_path, State(step, {"a": torch.ones(2)}))
    cut(tmp_path / "checkpoint-000010" / "state.safetensors")
    with files_of_at_most(1000), pytest.raises(TrainingError):
        save(tmp_path, State(10, {"a": torch.ones(2000)}))
    state = load_newest(tmp_path)
    assert state is not None
    assert state.step == 5
    save(tmp_path, State(10, {"a": torch.ones(2)}))
    assert names(tmp_path) == ["checkpoint-000005", "checkpoint-000010"]


def test_numbers_that_were_changed_make_it_broken(tmp_path: Path) -> None:
    save(tmp_path, State(5, {"a": torch.ones(2)}, {"beta": 0.1}))
    file = tmp_path / "checkpoint-000005" / "state.json"
    file.write_text(file.read_text().replace("0.1", "0.7"))
    with pytest.raises(ModelError, match="not what was written"):
        load_newest(tmp_path)


def test_its_content_is_on_the_disk_before_it_has_its_name_and_then_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_disk: list[tuple[str, bool]] = []
    final = tmp_path / "checkpoint-000005"
    monkeypatch.setattr(checkpoints, "sync", lambda path: on_disk.append((path.name, final.exists())))
    save(tmp_path, State(5, {"a": torch.ones(2, 3).t()}))
    draft = ".checkpoint-000005.partial"
    assert on_disk == [(name, False) for name in ("state.safetensors", "state.json", draft)] + [
        (tmp_path.name, True)
    ]


def test_only_the_first_process_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "world", lambda: replace(world(), rank=1))
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    assert names(tmp_path) == []


def test_too_little_memory_is_no_fault_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(torch.OutOfMemoryError), resuming(tmp_path):
        raise torch.OutOfMemoryError("no room")
    with pytest.raises(ModelError, match="does not hold what"), resuming(tmp_path):
        raise RuntimeError("other sizes")


@pytest.mark.parametrize("file", ["config.json", "plan.json"])
def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path, file: str) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(json.dumps({"model": name}))
    save(tmp_path / "one", State(5, {"a": torch.ones(2)}))
    (tmp_path / "one" / "checkpoint-000005").rename(tmp_path / "other" / "checkpoint-000005")
    with pytest.raises(ModelError, match="other settings") as raised:
        load_newest(tmp_path / "other")
    assert raised.value.where == str(tmp_path / "other" / "checkpoint-000005")


def test_a_checkpoint_of_another_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoints, "FORMAT", checkpoints.FORMAT + 1)
    save(tmp_path, State(5, {"a": torch.ones(2)}))
    monkeypatch.undo()
    with pytest.raises(ModelError, match="another version of tutelage"):
        load_newest(tmp_path)


@pytest.mark.parametrize("sizes", [[2], [2, 4]])
def test_an_optimizer_of_another_model_is_refused(sizes: list[int]) -> None:
    weights = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(3))]
    optimizer = AdamW([(weights, 0.1)])
    sum(weight.sum() for weight in weights).backward()
    update(optimizer, 0.0, max_norm=1.0, where="")
    other = AdamW([([nn.Parameter(torch.zeros(size)) for size in sizes], 0.1)])
    with pytest.raises(ModelError, match="does not fit"):
        unpack_optimizer(other, pack_optimizer(optimizer))
    assert not other.state


def test_an_optimizer_goes_on_as_if_it_had_never_stopped() -> None:
    def steps(weight: nn.Parameter, optimizer: AdamW, first: int, last: int) -> None:
        for step in range(first, last):
            loss = ((weight - step) ** 2).sum()
            loss.backward()
            update(optimizer, loss.item(), max_norm=1.0, where="")

    straight = nn.Parameter(torch.zeros(3))
    steps(straight, AdamW([([straight], 0.1)]), 0, 6)

    first_half = nn.Parameter(torch.zeros(3))
    optimizer = AdamW([([first_half], 0.1)])
    steps(first_half, optimizer, 0, 3)
    kept = pack_optimizer(optimizer)
    before = copied(kept)
    second_half = nn.Parameter(first_half.detach().clone())
    resumed = AdamW([([second_half], 0.1)])
    unpack_optimizer(resumed, kept)
    steps(second_half, resumed, 3, 6)
    assert torch.equal(straight, second_half)
    assert all(torch.equal(kept[name], tensor) for name, tensor in before.items())


def test_texts_are_the_same_only_where_each_of_them_is() -> None:
    given = [[1, 2], [], [3]]
    assert digest_of(given) == digest_of(iter(given))
    for other in ([[1], [2], [3]], [[1, 2], [3]], [[1, 2, 3]], [[3], [], [1, 2]], []):
        assert digest_of(other) != digest_of(given)
