"""The stages by hand, one run each, and a worker that carries out what an operator asked for."""

from __future__ import annotations

import json
import math
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch

from tutelage.cli import main
from tutelage.config import load
from tutelage.errors import InvalidRequest, NotFound, Unavailable
from tutelage.improvement import ImproveConfig, Installation, recording
from tutelage.improvement.inputs import find_adapter, find_start
from tutelage.improvement.recording import recorded
from tutelage.models.loading import load_model, load_version
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
Command = Callable[..., dict[str, Any]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in a home that holds the tiny data; returns its JSON."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))

    def run(*arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments, "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        assert left.value.code == 0, said.err
        result: dict[str, Any] = json.loads(said.out)
        return result

    run("import", "messages", str(TINY / "demonstrations.jsonl"))
    run("import", "ranked", str(TINY / "comparisons.jsonl"))
    return run


def test_stage_by_stage_to_a_version(command: Command, tmp_path: Path) -> None:
    planned = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--dry-run")
    assert planned["dialogues"] > 100
    assert not list((tmp_path / "runs").glob("*")), "a dry run leaves nothing behind"

    sft = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1")
    assert (sft["run"], sft["steps"]) == ("sft-0001", planned["steps"])
    reward = command("train", "reward", str(TINY / "reward.toml"), "--start", "sft-0001")
    assert reward["kind"] == "reward"
    small = [part for key in QUICK[:4] for part in ("--set", key.removeprefix("ppo."))]
    ppo = command("train", "ppo", str(TINY / "ppo.toml"), "--reward", "reward-0001", *small)
    assert ppo["kl"]["before"] == 0

    watched = command(
        "train", "ppo", str(TINY / "ppo.toml"), "--gold", "reward-0001", *small, "--set", "gold.every=1"
    )
    assert [point["step"] for point in watched["over_optimisation"]["curve"]] == [0, 1, 2]
    assert watched["gold_gain"]["value"] == watched["reward_gain"]["value"], "the same model watches"
    dpo = command("train", "dpo", str(TINY / "dpo.toml"), "--start", "sft-0001", "--set", "max_steps=2")
    assert (dpo["run"], dpo["steps"]) == ("dpo-0001", 2)
    sides = ["--policy", "ppo-0001", "--policy", "dpo-0001", "--best-of", "1", "--best-of", "4"]
    compared = command("compare", str(TINY / "ppo.toml"), *sides, "--gold", "reward-0001", *small)
    rows = compared["policies"]
    assert list(rows) == ["sft", "ppo-0001", "dpo-0001", "best-of-1", "best-of-4"]
    assert (rows["sft"]["kl"], rows["sft"]["reward_win_rate"]["value"]) == (0, 0.5)
    assert rows["best-of-1"]["kl"] == 0
    assert rows["best-of-4"]["kl"] == pytest.approx(math.log(4) - 3 / 4)
    assert rows["best-of-4"]["reward"]["value"] > rows["best-of-1"]["reward"]["value"]

    command("versions", "publish", reward["folder"])
    command("versions", "publish", ppo["folder"])
    registry = Registry(tmp_path)
    assert registry.resolve("latest", kind="reward").run == "reward-0001"
    version = registry.resolve("latest")
    assert (version.run, version.snapshot is not None) == ("ppo-0001", True)

    again = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--start", version.name)
    assert again["run"] == "sft-0002"
    assert json.loads((Path(again["folder"]) / "manifest.json").read_text())["parents"] == [version.name]


def test_a_model_that_was_fine_tuned_whole_is_the_base_of_what_follows(
    command: Command, tmp_path: Path
) -> None:
    quick = ("--set", "epochs=1", "--set", "max_steps=2")
    whole = command("train", "sft", str(TINY / "sft.toml"), *quick, "--set", "full=true")
    command("versions", "publish", whole["folder"])
    tuned = command("train", "sft", str(TINY / "sft.toml"), *quick, "--set", "model=v1")
    version = command("versions", "publish", tuned["folder"])
    assert (version["model"], version["parents"]) == ("v1", ["v1"])
    command("versions", "promote", "v2")
    exported = command("versions", "export", "v2", str(tmp_path / "out"), "--type", "f32")
    assert any(name.endswith("model.safetensors") for name in exported["files"])

    registry = Registry(tmp_path)
    served = load_version(registry.get("v2"), tmp_path, dtype="float32").model
    written = load_model(str(tmp_path / "out"), tmp_path, dtype="float32").model
    assert torch.equal(served.head, written.head)
    assert not torch.equal(served.head, load_model("tiny", tmp_path, dtype="float32").model.head)
    assert registry.get("v1").weights is not None


def test_reward_model_ppo_and_dpo_go_on_from_a_model_that_was_fine_tuned_whole(
    command: Command, tmp_path: Path
) -> None:
    """That model is the reference: there is no SFT adapter to name, and another base's is never taken."""
    command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--set", "max_steps=2")
    whole = command("train", "sft", str(TINY / "sft.toml"), "--set", "max_steps=2", "--set", "full=true")
    on_it = ("--set", f"model={command('versions', 'publish', whole['folder'])['name']}")
    quick = (*on_it, "--set", "members=1", "--set", "max_steps=2")
    command("train", "reward", str(TINY / "reward.toml"), *quick)
    small = [part for key in QUICK[:4] for part in ("--set", key.removeprefix("ppo."))]
    ppo = command("train", "ppo", str(TINY / "ppo.toml"), *on_it, *small, "--set", "full=true")
    assert (ppo["run"], ppo["kl"]["before"]) == ("ppo-0001", 0)
    light = command("train", "ppo", str(TINY / "ppo.toml"), *on_it, *small)
    assert light["kl"]["before"] == 0
    command("train", "dpo", str(TINY / "dpo.toml"), *on_it, "--set", "max_steps=2", "--set", "full=true")
    sides = ["--policy", "ppo-0001", "--policy", "ppo-0002", "--policy", "dpo-0001"]
    rows = command("compare", str(TINY / "ppo.toml"), *on_it, *small, *sides)["policies"]
    assert rows["sft"]["kl"] == 0
    assert all(rows[name]["kl"] != 0 for name in ("ppo-0001", "ppo-0002", "dpo-0001"))
    version = command("versions", "publish", ppo["folder"])
    assert (version["model"], version["parents"], version["adapter"]) == ("v1", ["v1"], None)

    place = place_of(tmp_path)
    assert find_start(place, "tiny", "tiny") is None
    assert find_start(place, "sft-0001", "tiny") == tmp_path / "runs" / "sft-0001" / "adapter"
    for name, stage, model, error, says in (
        ("reward-0001", "reward", "tiny", InvalidRequest, "reward-0001 belongs to the base v1"),
        ("", "reward", "tiny", NotFound, "no finished reward run on tiny"),
        ("", "sft", "tiny", NotFound, "sft-0002 trained all weights"),
        ("v1", "sft", "tiny", NotFound, "v1 trained all weights"),
    ):
        with pytest.raises(error, match=says) as raised:
            find_adapter(place, name, stage, model)
        assert raised.value.hint
    place.store.close()


def place_of(home: Path) -> Installation:
    return Installation(home, Store.open(home / "tutelage.db"), Registry(home))


def test_a_worker_carries_out_a_request(command: Command, tmp_path: Path) -> None:
    place = place_of(tmp_path)
    config = load(TINY / "improve.toml", ImproveConfig, QUICK).model_dump(mode="json")
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config)
    told: list[tuple[str, str | None]] = []
    work(place, once=True, tell=lambda *news: told.append(news))
    assert told == [(request.id, None)]
    with place.store.read() as tx:
        assert runs.get_request(tx, request.id).status == "done"
        assert [run.status for run in runs.list_runs(tx, kind="improve")] == ["done"]
    assert place.registry.resolve("candidate").run == "round-0001"
    log = (tmp_path / "runs" / "round-0001" / "log.txt").read_text()
    ended = [line.split(": done")[0].split()[-1] for line in log.splitlines() if ": done" in line]
    assert ended == ["sft", "reward", "judge", "ppo", "evaluation"]
    work(place, once=True, tell=lambda *news: told.append(news))
    assert len(told) == 1, "nothing was left to do"
    assert len(place.registry.list("chat")) == 1
    place.store.close()


def test_a_request_that_cannot_be_carried_out_says_why(command: Command, tmp_path: Path) -> None:
    place = place_of(tmp_path)
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"modle": "tiny"})
    work(place, once=True, tell=lambda *news: None)
    with place.store.read() as tx:
        row = runs.get_request(tx, request.id)
    assert row.status == "failed"
    assert "did you mean 'model'" in (row.error or "")
    place.store.close()


def test_a_request_that_is_taken_back_stops_its_round(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "LEASE", timedelta(seconds=0.2))
    place = place_of(tmp_path)
    config = load(TINY / "improve.toml", ImproveConfig, ["sft.epochs=300"]).model_dump(mode="json")
    with place.store.write() as tx:
        request = runs.request_run(tx, kind="improve", config=config)
    told: list[tuple[str, str | None]] = []
    worker = Thread(
        target=work, args=(place,), kwargs={"once": True, "tell": lambda *news: told.append(news)}
    )
    worker.start()
    while not (tmp_path / "runs" / "round-0001" / "sft" / "metrics.jsonl").exists():
        time.sleep(0.02)
    with place.store.write() as tx:
        runs.cancel_request(tx, request.id)
    worker.join(60)
    assert not worker.is_alive()
    assert "cancelled" in (told[0][1] or "")
    assert place.registry.list() == []
    with place.store.read() as tx:
        assert runs.get_run(tx, "round-0001").status == "stopped"
    place.store.close()


def test_two_workers_share_requests_and_take_over_from_one_that_died(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_trains_in_as_many_processes_as_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_waits_for_a_database_that_is_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = place_of(tmp_path)
    raised = [Unavailable("The database cannot be reached."), KeyboardInterrupt()]

    def take_request(*given: Any, **rest: Any) -> None:
        raise raised.pop(0)

    monkeypatch.setattr(runs, "take_request", take_request)
    with pytest.raises(KeyboardInterrupt):
        work(place, poll_seconds=0, tell=lambda *news: None)
    assert raised == []
    place.store.close()


def test_a_round_that_ends_while_the_database_is_away_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor when its worker dies between the round's end and the request's."""
    monkeypatch.setattr(recording, "RETRY_SECONDS", 0)
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_shows_itself_while_it_waits_and_works_and_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_outlives_a_defect_and_says_where_to_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_that_is_told_to_stop_leaves_its_round_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As supervisors tell it, which may stop it as often as they like: no worker has died."""
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_request_that_is_taken_back_before_its_round_begins_stops_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Data are read for minutes before. Nothing has failed."""
    place = place_of(tmp_path)
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
    place.store.close()


def test_a_worker_waits_for_a_round_that_another_works_on_and_keeps_its_request(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However long the other's step takes; it waits no longer than the request is its own."""
    monkeypatch.setattr(runs, "LEASE", timedelta(seconds=0.4))
    place = place_of(tmp_path)
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
    place.store.close()
