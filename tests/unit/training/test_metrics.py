"""A run's folder: what may be resumed, what is forgotten, what makes it finished."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tutelage.errors import Conflict, ModelError, NotFound, TrainingError
from tutelage.training.metrics import Run


def test_a_run_is_not_begun_twice(tmp_path: Path) -> None:
    Run.open(tmp_path / "r", "sft", {"a": 1}, resume=False)
    with pytest.raises(Conflict, match="exists already") as raised:
        Run.open(tmp_path / "r", "sft", {"a": 1}, resume=False)
    assert "--resume" in raised.value.hint
    Run.open(tmp_path / "r", "sft", {"a": 1}, resume=True)


def test_a_run_is_not_resumed_with_another_recipe(tmp_path: Path) -> None:
    Run.open(tmp_path / "r", "sft", {"a": 1, "b": [2], "kl": {"c": 0.1, "off": False}}, resume=False)
    with pytest.raises(Conflict, match=r"^this run began with a=1, kl.off=false, no d\n.*--set"):
        Run.open(
            tmp_path / "r", "sft", {"a": 2, "b": (2,), "kl": {"c": 0.1, "off": True}, "d": 3}, resume=True
        )


def test_a_folder_of_something_else_is_not_resumed_and_an_empty_one_is_begun(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    assert (Run.open(tmp_path / "r", "sft", {}, resume=True).folder / "config.json").exists()
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters" / "to-a-friend.txt").touch()
    with pytest.raises(NotFound, match="no run to resume"):
        Run.open(tmp_path / "letters", "sft", {}, resume=True)


def test_metrics_are_one_line_a_step_and_rewind_cuts_what_is_made_again(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    run = Run.open(
        tmp_path / "r",
        "sft",
        {},
        resume=False,
        progress=lambda stage, done, total, _: seen.append((stage, done, total)),
    )
    for step in range(4):
        run.log(step, 4, {"loss": 1.0 / (step + 1)})
    with (run.folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 4, "lo')  # killed while it wrote
    run.rewind(2)
    lines = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [0, 1]
    assert lines[1]["loss"] == 0.5
    assert seen[-1] == ("sft", 4, 4)


def test_the_step_that_stops_a_run_is_logged_as_far_as_it_was_measured(tmp_path: Path) -> None:
    seen: list[int] = []
    run = Run.open(tmp_path, "ppo", {}, resume=True, progress=lambda stage, done, *rest: seen.append(done))
    with run.step(0, 2) as metrics:
        metrics["kl"] = 1.0

    def stop(step: int, **measured: float) -> None:
        with run.step(step, 2) as metrics:
            metrics |= measured
            raise TrainingError("it has drifted")

    for step, measured in ((1, {"kl": 40.0, "reward": float("inf")}), (2, {})):
        with pytest.raises(TrainingError, match="drifted"):
            stop(step, **measured)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["kl"]) for row in rows] == [(0, 1.0), (1, 40.0)]
    assert rows[1]["reward"] is None
    assert seen == [1], "the step was not done"
    run.rewind(1)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1


def test_finished_with_its_manifest_and_without_checkpoints(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "r", "sft", {}, resume=False)
    (run.folder / "checkpoint-000005").mkdir()
    assert not run.finished
    run.finish({"kind": "chat"})
    assert run.finished
    assert run.manifest() == {"kind": "chat"}
    assert list(run.folder.glob("checkpoint-*")) == []


def test_what_a_kill_left_of_a_finished_run_is_cleared_away(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "r", "sft", {}, resume=False)
    run.finish({"kind": "chat"})
    for name in ("checkpoint-000005", ".checkpoint-000010.partial"):
        (run.folder / name).mkdir()
    Run.open(tmp_path / "r", "sft", {}, resume=True)
    assert list(run.folder.glob("*checkpoint-*")) == []


def test_a_full_disk_is_told_with_the_file_and_the_way_out(tmp_path: Path) -> None:
    run = Run.open(tmp_path / "r", "sft", {}, resume=False)
    (run.folder / "metrics.jsonl").symlink_to("/dev/full")  # every write to it fails as on a full disk
    with pytest.raises(TrainingError, match="No space left") as raised:
        run.log(0, 1, {"loss": 1.0})
    assert raised.value.where == str(run.folder / "metrics.jsonl")
    assert "--resume" in raised.value.hint


def test_settings_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"a": ')
    with pytest.raises(ModelError, match="cannot be read") as raised:
        Run.open(tmp_path, "sft", {"a": 1}, resume=True)
    assert raised.value.where == str(tmp_path / "config.json")


@pytest.mark.parametrize("line", [b'{"step": 1, "lo', b"\xff\xfe", b"null", b"{}", b'{"step": "one"}'])
def test_metrics_end_where_a_line_is_broken(tmp_path: Path, line: bytes) -> None:
    run = Run.open(tmp_path, "sft", {}, resume=True)
    run.log(0, 9, {"loss": 1.0})
    file = tmp_path / "metrics.jsonl"
    whole = file.read_bytes()
    file.write_bytes(whole + line + b"\n")
    run.rewind(5)
    assert file.read_bytes() == whole
