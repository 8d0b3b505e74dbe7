"""Only what nobody needs any more is deleted."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from tutelage.errors import Conflict
from tutelage.improvement import retention
from tutelage.improvement.recording import alone
from tutelage.improvement.retention import DAY, leftovers, tidy


def make(home: Path, name: str, *, days: float) -> Path:
    folder = home / name
    folder.mkdir(parents=True)
    (folder / "weights").write_bytes(b"12345")
    then = time.time() - days * DAY
    for each in (folder / "weights", folder):
        os.utime(each, (then, then))
    return folder


def test_old_checkpoints_and_drafts_go_and_everything_else_stays(tmp_path: Path) -> None:
    gone = [
        make(tmp_path, "runs/round-0001/sft/checkpoint-000004", days=40),
        make(tmp_path, "runs/ppo-0002/checkpoint-000010", days=31),
        make(tmp_path, "versions/.publishing-abc", days=2),
        make(tmp_path, "snapshots/.writing-abc", days=2),
        make(tmp_path, "snapshots/.replaced-abc", days=2),
        make(tmp_path, "runs/sft-0001/.weights.abc", days=2),
        make(tmp_path, "runs/round-0001/sft/.checkpoint-000008.partial", days=2),
        make(tmp_path, "runs/ppo-0001/rollouts/policy-1234", days=2),
    ]
    kept = [
        make(tmp_path, "runs/round-0002/ppo/checkpoint-000004", days=29),
        make(tmp_path, "runs/round-0001/sft/adapter", days=40),
        make(tmp_path, "versions/v1/adapter", days=400),
        make(tmp_path, "snapshots/abc", days=400),
        make(tmp_path, "versions/.publishing-now", days=0.1),
        make(tmp_path, "versions/.publishing-slowly", days=2),
        make(tmp_path, "runs/sft-0003/checkpoint-000010", days=40),
        make(tmp_path, "runs/sft-0003/checkpoint-000020", days=1),
    ]
    os.utime(kept[5] / "weights")  # its folder is old, and it is being written to
    assert [each.size for each in leftovers(tmp_path, days=30)] == [5] * 8
    assert all(path.exists() for path in gone)
    assert sorted(each.path for each in tidy(tmp_path, days=30)) == sorted(gone)
    assert not any(path.exists() for path in gone)
    assert all(path.exists() for path in kept)
    assert tidy(tmp_path, days=30) == []
    assert tidy(tmp_path / "nowhere", days=0) == []


def test_a_run_at_work_keeps_its_checkpoints(tmp_path: Path) -> None:
    checkpoint = make(tmp_path, "runs/round-0001/sft/checkpoint-000004", days=40)
    with alone(tmp_path / "runs" / "round-0001"):
        assert tidy(tmp_path, days=30) == []
    assert checkpoint.exists()


def test_a_run_that_is_taken_up_in_the_meantime_waits_until_its_checkpoints_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "runs/sft-0001/checkpoint-000004", days=40)

    def rmtree(path: Path, ignore_errors: bool) -> None:
        with pytest.raises(Conflict), alone(tmp_path / "runs" / "sft-0001"):
            pass

    monkeypatch.setattr(retention.shutil, "rmtree", rmtree)
    assert len(tidy(tmp_path, days=30)) == 1
    with alone(tmp_path / "runs" / "sft-0001"):
        pass
