"""A worker, which carries out what operators asked for."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from tutelage.cli import main
from tutelage.config import load
from tutelage.datasets import importing
from tutelage.datasets.sources import PARSERS, read
from tutelage.errors import Unavailable
from tutelage.improvement import ImproveConfig, Installation, recording
from tutelage.improvement.recording import recorded
from tutelage.registry import Registry
from tutelage.store import Store, runs, workers
from tutelage.training.cluster import train_on_ray
from tutelage.training.job import train
from tutelage.training.metrics import Run
from tutelage.training.processes import train_in_processes
from tutelage.worker import work

TINY = Path(__file__).parents[2] / "recipes" / "tiny"
QUICK = [
    "ppo.steps=2",
    "ppo.value.warmup_steps=1",
    "ppo.max_new_tokens=8",
    "ppo.held_out_prompts=4",
    "sft.epochs=1",
    "evaluation.prompts=4",
    "evaluation.max_new_tokens=8",
]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Installation]:
    """An installation in which nothing is yet."""
    store = Store.open(tmp_path / "tutelage.db")
    yield Installation(tmp_path, store, Registry(tmp_path))
    store.close()


@pytest.fixture
def taught(place: Installation) -> Installation:
    """An installation with the tiny data."""
    for file, form in (("demonstrations", "messages"), ("comparisons", "ranked")):
        found = read(TINY / f"{file}.jsonl", PARSERS[form], source="", default_source=form)
        importing.load(place.store, found, strict=True)
    return place


def test_a_worker_carries_out_a_request(taught: Installation, tmp_path: Path) -> None:
    config = load(TINY / "improve.toml", ImproveConfig, QUICK).model_dump(mode="json")
    with taught.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config)
    told: list[tuple[str, str | None]] = []
    work(taught, once=True, tell=lambda *news: told.append(news))
    assert told == [(request.id, None)]
    with taught.store.read() as tx:
        assert runs.get_request(tx, request.id).status == "done"
        assert [run.status for run in runs.list_runs(tx, kind="improve")] == ["done"]
    assert taught.registry.resolve("candidate").run == "round-0001"
    log = (tmp_path / "runs" / "round-0001" / "log.txt").read_text()
    ended = [line.split(": done")[0].split()[-1] for line in log.splitlines() if ": done" in line]
    assert ended == ["sft", "reward", "judge", "ppo", "evaluation"]
    work(taught, once=True, tell=lambda *news: told.append(news))
    assert len(told) == 1, "nothing was left to do"
    assert len(taught.registry.list("chat")) == 1


def test_a_request_that_cannot_be_carried_out_says_why(place: Installation) -> None:
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"modle": "tiny"})
    work(place, once=True, tell=lambda *news: None)
    with place.store.read() as tx:
        row = runs.get_request(tx, request.id)
    assert row.status == "failed"
    assert "did you mean 'model'" in (row.error or "")


def test_a_request_that_is_taken_back_stops_its_round(
    taught: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEASE", timedelta(seconds=0.2))
    config = load(TINY / "improve.toml", ImproveConfig, ["sft.epochs=300"]).model_dump(mode="json")
    with taught.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config)
    told: list[tuple[str, str | None]] = []
    worker = Thread(
        target=work, args=(taught,), kwargs={"once": True, "tell": lambda *news: told.append(news)}
    )
    worker.start()
    while not (tmp_path / "runs" / "round-0001" / "sft" / "metrics.jsonl").exists():
        time.sleep(0.02)
    with taught.store.write() as tx:
        runs.cancel_request(tx, request.id)
    worker.join(60)
    assert not worker.is_alive()
    assert "cancelled" in (told[0][1] or "")
    assert taught.registry.list() == []
    with taught.store.read() as tx:
        assert runs.get_run(tx, "round-0001").status == "stopped"


def test_two_workers_share_requests_and_take_over_from_one_that_died(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.store.write() as tx:
        wanted = {runs.request_run(tx, kind="improve", config={"model": "tiny"}).id for _ in range(6)}
        dead = runs.take_request(tx, worker="dead", lease=timedelta(seconds=-1))
    assert dead is not None
    carried_out: list[str] = []

    def improve(config: ImproveConfig, place: Installation, **rest: Any) -> dict[str, Any]:
        carried_out.append(threading.current_thread().name)
        time.sleep(0.05)
        return {}

    monkeypatch.setattr("tutelage.worker.improve", improve)
    told: list[str] = []

    def several() -> None:
        for _ in range(6):
            work(place, once=True, tell=lambda request_id, error: told.append(request_id))

    threads = [Thread(target=several, name=f"worker-{number}") for number in range(2)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert sorted(told) == sorted(wanted)
    assert len(set(carried_out)) == 2


def test_a_worker_trains_in_as_many_processes_as_it_is_told_to(
    place: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trainers: list[Any] = []
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    monkeypatch.setattr("tutelage.worker.improve", lambda *given, trainer, **rest: trainers.append(trainer))
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    for options, expected in (
        ([], (train, {})),
        (["--processes", "2"], (train_in_processes, {"processes": 2})),
        (["--processes", "2", "--ray", "local"], (train_on_ray, {"address": "local", "processes": 2})),
    ):
        with place.store.write() as tx:
            runs.request_run(tx, kind="improve", config={"model": "tiny"})
        monkeypatch.setattr(sys, "argv", ["tutelage", "worker", "--once", *options])
        with pytest.raises(SystemExit, match="0"):
            main()
        found = trainers.pop()
        assert (getattr(found, "func", found), getattr(found, "keywords", {})) == expected
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(sys, "argv", ["tutelage", "worker", "--processes", "2"])
    with pytest.raises(SystemExit, match="2"):
        main()  # before it takes a request
    assert "this machine has 1 GPUs" in capsys.readouterr().err


def test_a_worker_waits_for_a_database_that_is_away(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised = [Unavailable("The database cannot be reached."), KeyboardInterrupt()]

    def take_request(*given: Any, **rest: Any) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(runs, "take_request", take_request)
    with pytest.raises(KeyboardInterrupt):
        work(place, poll_seconds=0, tell=lambda *news: None)
    assert raised == []


def test_a_round_that_ends_while_the_database_is_away_is_not_done_again(
    place: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when its worker dies between the round's end and the request's."""
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0)
    config = load(TINY / "improve.toml", ImproveConfig)
    done = tmp_path / "runs" / "round-0001"
    Run(done, "round").keep(
        "round.json", {"config": config.model_dump(mode="json"), "report": {"version": "v7"}}
    )
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config.model_dump(mode="json"))
        request.run_id = runs.create_run(tx, kind="improve", config={}, name=done.name).id
    raised = [Unavailable("The database cannot be reached.")] * 2
    finish = runs.finish_request

    def finish_request(*given: Any, **rest: Any) -> Any:
        if raised:
            raise raised.pop()
        return finish(*given, **rest)

    monkeypatch.setattr(runs, "finish_request", finish_request)
    work(place, once=True, tell=lambda *news: None)
    with place.store.read() as tx:
        assert runs.get_request(tx, request.id).status == "done"
        assert runs.get_run(tx, done.name).status == "done"
    assert [each.name for each in done.parent.iterdir()] == [done.name]


def test_a_worker_shows_itself_while_it_waits_and_works_and_leaves(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.store.write() as tx:
        runs.request_run(tx, kind="improve", config={"model": "tiny"})
    seen: list[list[str]] = []

    def look() -> None:
        with place.store.read() as tx:
            seen.append([*workers.alive(tx)])

    def improve(*given: Any, **rest: Any) -> dict[str, Any]:
        with place.store.write() as tx:  # as if it had been silent since it took the request
            workers.leave(tx, *workers.alive(tx))
        deadline = time.monotonic() + 30
        while not seen or not seen[-1]:
            assert time.monotonic() < deadline
            time.sleep(0.02)
            look()
        return {}

    monkeypatch.setattr("tutelage.worker.NOTICE_SECONDS", 0.05)
    monkeypatch.setattr("tutelage.worker.improve", improve)
    work(place, once=True, tell=lambda *news: look())
    assert len(seen[-1]) == 1
    assert str(os.getpid()) in seen[-1][0]
    look()
    assert seen[-1] == []


def test_a_worker_outlives_a_defect_and_says_where_to_look(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"model": "tiny"})

    def improve(*given: Any, **rest: Any) -> dict[str, Any]:
        raise ZeroDivisionError("x")

    monkeypatch.setattr("tutelage.worker.improve", improve)
    work(place, once=True, tell=lambda *news: None)
    with place.store.read() as tx:
        row = runs.get_request(tx, request.id)
    assert row.status == "failed"
    assert "hint: the worker's log has more" in (row.error or "")


def test_a_worker_that_is_told_to_stop_leaves_its_round_to_the_next(
    place: Installation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As supervisors tell it, which may stop it as often as they like: no worker has died."""
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"model": "tiny"})

    def improve(*given: Any, **rest: Any) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(30)
        return {}

    monkeypatch.setattr("tutelage.worker.improve", improve)
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["tutelage", "worker"])
    before = signal.getsignal(signal.SIGTERM)
    try:
        for _ in range(runs.ATTEMPTS + 1):
            with pytest.raises(SystemExit, match="130"):
                main()
    finally:
        signal.signal(signal.SIGTERM, before)
    with place.store.read() as tx:
        row = runs.get_request(tx, request.id)
    assert (row.status, row.worker, row.attempts) == ("pending", None, 0)


def test_a_request_that_is_taken_back_before_its_round_begins_stops_it(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data are read for minutes before. Nothing has failed."""
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"model": "tiny"})

    def improve(config: ImproveConfig, place: Installation, *, begun: Callable[[str], None], **_: Any) -> Any:
        with place.store.write() as tx:
            runs.cancel_request(tx, request.id)
        with recorded(place.store, "round-0001", "improve", {}) as run_id:
            begun(run_id)

    monkeypatch.setattr("tutelage.worker.improve", improve)
    told: list[str | None] = []
    work(place, once=True, tell=lambda _, error: told.append(error))
    assert "cancelled" in (told[0] or "")
    with place.store.read() as tx:
        assert runs.get_run(tx, "round-0001").status == "stopped"


def test_a_worker_waits_for_a_round_that_another_works_on_and_keeps_its_request(
    place: Installation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the other's step takes; it waits no longer than the request is its own."""
    monkeypatch.setattr(runs, "LEASE", timedelta(seconds=0.4))
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"model": "tiny"})
    leases = []

    def improve(*given: Any, waiting: Callable[[], None], **rest: Any) -> None:
        for moment in range(600):
            waiting()
            time.sleep(0.05)
            with place.store.write() as tx:
                leases.append(runs.get_request(tx, request.id).lease_expires)
                if moment == 20:
                    runs.cancel_request(tx, request.id)

    monkeypatch.setattr("tutelage.worker.improve", improve)
    told: list[str | None] = []
    work(place, once=True, tell=lambda _, error: told.append(error))
    assert leases[20] > leases[0]
    assert "cancelled" in (told[0] or "")
