from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, runs


def test_runs_are_numbered_by_kind(store: Store) -> None:
    with store.write() as tx:
        names = [runs.create_run(tx, kind=kind, config={}).name for kind in ("sft", "ppo", "sft")]
        assert names == ["sft-0001", "ppo-0001", "sft-0002"]
        assert runs.create_run(tx, kind="sft", config={}, name="sft-0004").name == "sft-0004"
        assert runs.create_run(tx, kind="sft", config={}).name == "sft-0005"
        with pytest.raises(Conflict):
            runs.create_run(tx, kind="sft", config={}, name="ppo-0001")
        assert [run.name for run in runs.list_runs(tx, kind="sft", limit=2)] == ["sft-0005", "sft-0004"]


def test_a_run_says_how_it_goes(store: Store) -> None:
    with store.write() as tx:
        run = runs.create_run(tx, kind="improve", config={"steps": 3}, parents=["v1"])
        assert (run.status, run.parents) == ("queued", ["v1"])
        runs.update_run(tx, run.id, status="running", metrics={"loss": 1.5})
        runs.update_run(tx, run.id, status="failed", error="out of memory")
    with store.write() as tx:
        found = runs.get_run(tx, run.name)
        assert (found.id, found.status, found.metrics) == (run.id, "failed", {"loss": 1.5})
        assert (found.error, found.config) == ("out of memory", {"steps": 3})
        wrong: Any = "sleeping"
        with pytest.raises(InvalidRequest):
            runs.update_run(tx, run.id, status=wrong)
        with pytest.raises(NotFound):
            runs.get_run(tx, "none")


def test_a_request_goes_to_one_worker(store: Store) -> None:
    with store.write() as tx:
        wanted = [runs.request_run(tx, kind="improve", config={"n": n}).id for n in range(5)]

    def take(number: int) -> str | None:
        with store.write() as tx:
            request = runs.take_request(tx, worker=f"w{number}")
            return None if request is None else request.id

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, range(8)))
    assert sorted(filter(None, taken)) == wanted
    assert taken.count(None) == 3


def test_a_dead_workers_request_comes_back(store: Store) -> None:
    with store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={})
        runs.take_request(tx, worker="dead", lease=timedelta(seconds=-1))
        again = runs.take_request(tx, worker="alive")
        assert again is not None
        assert again.id == request.id
        with pytest.raises(Conflict):
            runs.renew_request(tx, request.id, worker="dead")
        run = runs.create_run(tx, kind="improve", config={})
        assert runs.renew_request(tx, request.id, worker="alive", run_id=run.id).run_id == run.id
        done = runs.finish_request(tx, request.id, worker="alive", status="failed", error="no data")
        assert (done.status, done.error, done.run_id) == ("failed", "no data", run.id)
        assert runs.take_request(tx, worker="alive") is None
        with pytest.raises(Conflict):
            runs.finish_request(tx, request.id, worker="alive", status="done")


def test_a_cancelled_request_is_not_run(store: Store) -> None:
    with store.write() as tx:
        first, second = (runs.request_run(tx, kind="improve", config={}) for _ in range(2))
        runs.cancel_request(tx, first.id)
        taken = runs.take_request(tx, worker="w")
        assert taken is not None
        assert taken.id == second.id
        runs.cancel_request(tx, second.id)
        with pytest.raises(Conflict):
            runs.renew_request(tx, second.id, worker="w")
        with pytest.raises(Conflict):
            runs.cancel_request(tx, second.id)
        with pytest.raises(NotFound):
            runs.cancel_request(tx, "none")
        assert [row.id for row in runs.list_requests(tx)] == [second.id, first.id]


def test_a_request_that_kills_its_workers_fails_with_a_hint_and_can_be_resumed(store: Store) -> None:
    with store.write() as tx:
        request = runs.request_run(tx, kind="improve", config={"n": 1})
        for number in range(runs.ATTEMPTS):
            taken = runs.take_request(tx, worker=f"w{number}", lease=timedelta(seconds=-1))
            assert taken is not None
            assert taken.id == request.id
        assert runs.take_request(tx, worker="last") is None
        failed = runs.get_request(tx, request.id)
        assert failed.status == "failed"
        assert "hint:" in (failed.error or "")
        again = runs.resume_request(tx, request.id)
        assert (again.config, again.attempts, again.status) == ({"n": 1}, 0, "pending")
        assert [row.id for row in runs.open_requests(tx)] == [again.id]
        with pytest.raises(Conflict):
            runs.resume_request(tx, again.id)
        with pytest.raises(NotFound):
            runs.resume_request(tx, "none")
