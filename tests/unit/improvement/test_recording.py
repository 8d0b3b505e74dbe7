"""A run's row and its folder while it is carried out."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import Conflict, TrainingError, Unavailable
from tutelage.improvement import recording
from tutelage.improvement.recording import RunStopped, alone, noting, recorded
from tutelage.store import Store, runs


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store.open(tmp_path / "tutelage.db")


def status(store: Store) -> tuple[str, str | None]:
    with store.read() as tx:
        run = runs.get_run(tx, "round-0001")
    return run.status, run.error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (None, ("done", "")),
        (RunStopped("cancelled"), ("stopped", "")),
        (KeyboardInterrupt(), ("stopped", "")),
        (
            TrainingError("the loss is not a number", hint="lower it"),
            ("failed", "the loss is not a number\nhint: lower it"),
        ),
        (ZeroDivisionError("x"), ("failed", "ZeroDivisionError('x')")),
    ],
)
def test_how_a_run_ended_is_kept(
    store: Store, error: BaseException | None, expected: tuple[str, str]
) -> None:
    def carry_out() -> None:
        with recorded(store, "round-0001", "improve", {}):
            assert status(store)[0] == "running"
            if error is not None:
                raise error

    if error is None:
        carry_out()
    else:
        with pytest.raises(type(error)):
            carry_out()
    assert status(store) == expected
    with recorded(store, "round-0001", "improve", {}):
        assert status(store) == ("running", "")


def test_how_far_it_is_is_noted_and_passed_on(store: Store) -> None:
    told = []
    with recorded(store, "round-0001", "improve", {}) as run_id:
        progress = noting(store, run_id, lambda *news: told.append(news))
        for done in (1, 2, 3):
            progress("sft", done, 3, {"loss": 1.0 / done})
            with store.read() as tx:
                noted = runs.get_run(tx, run_id).metrics
            assert noted["done"] == (3 if done == 3 else 1)  # at most once a second, and at the end
    assert noted == {"stage": "sft", "done": 3, "total": 3, "metrics": {"loss": 1 / 3}}
    assert len(told) == 3


def test_a_store_that_is_busy_does_not_stop_the_training() -> None:
    class Busy:
        def write(self) -> None:
            raise Unavailable("the store is busy")

    store: Any = Busy()
    told = []
    noting(store, "run", lambda *news: told.append(news))("sft", 1, 1, {})
    assert told == [("sft", 1, 1, {})]


def test_who_comes_while_another_works_waits_for_as_long_as_it_wants(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0.01)
    entered = threading.Event()
    waited: list[None] = []

    def second() -> None:
        with alone(tmp_path, waiting=lambda: waited.append(None)):
            entered.set()

    def enough() -> None:
        raise RunStopped("cancelled")

    thread = threading.Thread(target=second)
    with alone(tmp_path):
        thread.start()
        assert not entered.wait(0.1)
        with pytest.raises(RunStopped), alone(tmp_path, waiting=enough):
            pass
    assert entered.wait(10)
    thread.join()
    assert len(waited) > 1
    assert caplog.messages == [f"another process is working on {tmp_path.name}: waiting for its end"] * 2


HOLD = (
    "import fcntl, sys, time; stream = open(sys.argv[1], 'a'); "
    "fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB); print('held', flush=True); time.sleep(60)"
)


def test_a_folder_is_held_for_as_long_as_those_who_work_for_its_holder(tmp_path: Path) -> None:
    with alone(tmp_path):
        worker = subprocess.Popen(
            [sys.executable, "-S", "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
        )
    with pytest.raises(Conflict, match="another process"), alone(tmp_path):
        pass
    worker.communicate(b"\n")
    with alone(tmp_path):
        pass


def test_a_folder_belongs_to_one_process_until_that_ends(tmp_path: Path) -> None:
    command = [sys.executable, "-S", "-c", HOLD, str(tmp_path / ".lock")]
    with alone(tmp_path):
        refused = subprocess.run(command, capture_output=True, text=True)
    assert "BlockingIOError" in refused.stderr
    holder = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with pytest.raises(Conflict, match="another process"), alone(tmp_path):
        pass
    holder.kill()
    holder.wait()
    started = time.monotonic()
    with alone(tmp_path, waiting=lambda: None):
        assert time.monotonic() - started < 5
