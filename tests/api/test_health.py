"""GET /health: what a load balancer or a supervisor asks."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.errors import Unavailable
from tutelage.store import Store


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
