"""POST /api/operator-link: how the first operator comes to be."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.store import accounts


@pytest.fixture
def token(site: Any) -> str:
    with site.store.write() as tx:
        made: str = accounts.make_operator_link(tx)
        return made


def test_the_present_guest_becomes_the_operator_under_a_new_session(client: TestClient, token: str) -> None:
    client.post("/api/dialogues", json={"text": "Hi"})
    guest, before = client.get("/api/me").json()["user"], client.cookies["tutelage"]
    made = client.post("/api/operator-link", json={"token": token}).json()["user"]
    assert (made["id"], made["role"]) == (guest["id"], "operator")
    assert client.get("/api/me").json()["user"]["role"] == "operator"
    assert client.get("/api/me", headers={"cookie": f"tutelage={before}"}).json()["user"] is None


def test_somebody_without_a_session_becomes_one_too(client: TestClient, token: str) -> None:
    assert client.post("/api/operator-link", json={"token": token}).status_code == 200
    assert client.get("/api/me").json()["user"]["role"] == "operator"


def test_a_new_operator_can_take_a_name(client: TestClient, token: str) -> None:
    client.post("/api/operator-link", json={"token": token})
    named = client.put("/api/account", json={"name": "ann", "password": "correct horse battery"})
    assert named.json()["user"]["role"] == "operator"


def test_a_link_works_once(client: TestClient, token: str) -> None:
    client.post("/api/operator-link", json={"token": token})
    client.cookies.clear()
    assert client.post("/api/operator-link", json={"token": token}).status_code == 403
    assert client.get("/api/me").json()["user"] is None


def test_a_link_whose_session_fails_is_not_used_up(
    site: Any, client: TestClient, token: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(accounts, "open_session", None)
        assert client.post("/api/operator-link", json={"token": token}).status_code == 500
    with site.store.read() as tx:
        assert accounts.count_users(tx) == 0
    assert client.post("/api/operator-link", json={"token": token}).json()["user"]["role"] == "operator"


def test_looking_at_it_does_not_use_it(client: TestClient, token: str) -> None:
    for method in ("GET", "HEAD"):
        assert client.request(method, "/api/operator-link", params={"token": token}).status_code == 405
    assert client.post("/api/operator-link", json={"token": token}).status_code == 200


def test_guesses_are_refused(client: TestClient) -> None:
    for guess in ("x", "é", "a" * 200):
        assert client.post("/api/operator-link", json={"token": guess}).status_code == 403
