"""GET /health: what a load balancer or a supervisor asks."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from tutelage.errors import DataError, Unavailable
from tutelage.store import Store, search


def test_a_server_that_works_says_so_without_a_session_and_while_no_model_can_answer(site: Any) -> None:
    site.load = None
    with site.client() as client:
        client.cookies.clear()
        answer = client.get("/health")
        assert (answer.status_code, answer.json()) == (200, {"status": "ok"})
        assert "set-cookie" not in answer.headers


def test_a_database_that_does_not_answer_is_a_503(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with site.client() as client:

        def broken(self: Store) -> Any:
            raise Unavailable("The database is busy.", hint="Try again in a moment.")

        monkeypatch.setattr(Store, "read", broken)
        answer = client.get("/health")
        assert answer.status_code == 503
        assert answer.json()["error"]["message"].startswith("The database is busy.")


def test_a_database_that_cannot_be_read_is_no_fault_of_whoever_asks(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with site.client() as client:

        def broken(self: Store) -> Any:
            raise DataError("The database cannot be used: disk I/O error.", path="/data/tutelage.db")

        monkeypatch.setattr(Store, "read", broken)
        answer = client.get("/health")
        assert (answer.status_code, answer.json()["error"]["type"]) == (503, "server_error")
        assert "/data" not in answer.text
        assert "/data/tutelage.db: The database cannot be used: disk I/O error." in caplog.text


def test_what_goes_on_beside_the_requests_outlives_an_error(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []

    def failing(tx: Any) -> bool:
        tries.append("tidy")
        raise DataError("The database cannot be used: disk I/O error.") if len(tries) < 3 else OSError

    monkeypatch.setattr("tutelage.server.app.TIDY_SECONDS", 0.01)
    monkeypatch.setattr(search, "tidy", failing)
    with site.client():
        pause = threading.Event()
        for _ in range(1000):
            if len(tries) > 4:
                return
            pause.wait(0.01)
    raise AssertionError(tries)
