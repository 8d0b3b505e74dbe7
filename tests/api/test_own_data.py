"""One's own account: instructions, sessions, leaving, invitations, and how many answers are left."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.store import accounts, invites, quota
from tutelage.store.usage import ChatSettings, change_chat_settings

PASSWORD = "a long enough password"


def test_instructions_begin_every_new_chat_and_go_through_the_filter(client: TestClient, site: Any) -> None:
    set_to = client.put("/api/account/instructions", json={"instructions": " Be brief. "})
    assert set_to.json()["user"]["instructions"] == "Be brief."
    turn = client.post("/api/dialogues", json={"text": "Hi"}).json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    prompt = site.renderer.decode(site.engines["v1"].prompts[-1])
    assert "Be brief." in prompt
    messages = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()["messages"]
    assert [row["role"] for row in messages] == ["system", "user", "assistant"]
    again = client.post(f"/api/messages/{turn['answer_id']}/regenerate").json()
    client.get(f"/api/answers/{again['answer_id']}/events")
    assert site.renderer.decode(site.engines["v1"].prompts[-1]) == prompt
    assert client.put("/api/account/instructions", json={"instructions": "murder"}).status_code == 400
    assert client.put("/api/account/instructions", json={"instructions": "x" * 2001}).status_code == 400


def test_sessions_are_listed_and_ended_one_by_one(client: TestClient) -> None:
    client.put("/api/account", json={"name": "Ada", "password": PASSWORD})
    here = client.cookies["tutelage"]
    client.cookies.clear()
    client.post(
        "/api/sign-in", json={"name": "Ada", "password": PASSWORD}, headers={"user-agent": "Elsewhere/1.0"}
    )
    there = client.cookies["tutelage"]
    sessions = client.get("/api/sessions").json()["sessions"]
    assert [(row["agent"], row["here"]) for row in sessions] == [
        ("Elsewhere/1.0", True),
        ("testclient", False),
    ]
    assert client.delete(f"/api/sessions/{sessions[1]['id']}").status_code == 204
    client.cookies.clear()
    assert client.get("/api/me", headers={"cookie": f"tutelage={here}"}).json()["user"] is None
    assert client.get("/api/me", headers={"cookie": f"tutelage={there}"}).json()["user"]["name"] == "Ada"


def test_somebody_elses_session_cannot_be_ended(client: TestClient) -> None:
    client.post("/api/dialogues")
    [mine] = client.get("/api/sessions").json()["sessions"]
    cookie = client.cookies["tutelage"]
    client.cookies.clear()
    client.delete(f"/api/sessions/{mine['id']}")
    client.cookies.clear()
    assert client.get("/api/me", headers={"cookie": f"tutelage={cookie}"}).json()["user"] is not None


def test_leaving_needs_the_password_and_forgets_everything(client: TestClient) -> None:
    client.post("/api/dialogues", json={"text": "Hi"})
    client.put("/api/account", json={"name": "Ada", "password": PASSWORD})
    for wrong in ({}, {"password": "wrong"}):
        assert client.request("DELETE", "/api/account", json=wrong).status_code == 400
    assert client.request("DELETE", "/api/account", json={"password": PASSWORD}).status_code == 204
    assert client.get("/api/me").json()["user"] is None
    signed_in = client.post("/api/sign-in", json={"name": "Ada", "password": PASSWORD})
    assert signed_in.status_code == 401


def test_the_last_operator_cannot_leave(client: TestClient, site: Any) -> None:
    first = site.session("operator")
    assert client.request("DELETE", "/api/account", json={}, headers=first).status_code == 409
    second = site.session("operator")
    assert client.request("DELETE", "/api/account", json={}, headers=first).status_code == 204
    assert client.request("DELETE", "/api/account", json={}, headers=second).status_code == 409


def test_an_invitation_makes_a_person_of_its_role(client: TestClient, site: Any) -> None:
    with site.store.write() as tx:
        operator = accounts.create_user(tx, name="Op", password_hash="-", role="operator")
        _, token = invites.create_invite(tx, role="trainer", by=operator.id)
    client.post("/api/dialogues", json={"text": "As a guest"})
    body = {"token": token, "name": "Tina", "password": PASSWORD}
    assert client.post("/api/invites/accept", json=body | {"password": "short"}).status_code == 400
    assert client.post("/api/invites/accept", json=body | {"name": "op"}).status_code == 409
    assert client.post("/api/invites/accept", json=body).json()["user"]["role"] == "trainer"
    assert len(client.get("/api/dialogues").json()["dialogues"]) == 1
    assert client.post("/api/invites/accept", json=body | {"name": "Other"}).status_code == 403


def test_answers_are_counted_down_and_then_refused(client: TestClient, site: Any) -> None:
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_limit=2))
    turn = client.post("/api/dialogues", json={"text": "One", "idempotency_key": "k"}).json()
    assert turn["remaining"] == 1
    client.get(f"/api/answers/{turn['answer_id']}/events")
    client.post("/api/dialogues", json={"text": "One", "idempotency_key": "k"})
    blocked = client.post("/api/dialogues", json={"text": "murder"}).json()
    assert blocked["remaining"] == 1
    assert client.post(f"/api/messages/{turn['answer_id']}/regenerate").json()["remaining"] == 0
    refused = client.post("/api/dialogues", json={"text": "Three"})
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 0
    assert len(client.get("/api/dialogues").json()["dialogues"]) == 2


def test_a_guest_who_is_full_adds_nothing_until_they_delete_or_sign_in(
    client: TestClient, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "MILLION", 10)
    turn = client.post("/api/dialogues", json={"text": "One"}).json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_storage=2))
    answer, dialogue = f"/api/messages/{turn['answer_id']}", f"/api/dialogues/{turn['dialogue_id']}"
    wishes: list[tuple[str, str, Any]] = [
        ("POST", "/api/dialogues", {"text": "Two"}),
        ("POST", f"{dialogue}/messages", {"text": "Two"}),
        ("POST", f"{answer}/regenerate", None),
        ("POST", f"{answer}/continue", None),
        ("PUT", f"{answer}/rating", {"verdict": "up"}),
        ("POST", f"{answer}/report", {"kind": "missed"}),
        ("PUT", f"{dialogue}/share", {}),
        ("POST", "/api/import", {"conversations": []}),
    ]
    for method, path, body in wishes:
        refused = client.request(method, path, json=body)
        assert (refused.status_code, refused.json()["error"]["code"]) == (409, "storage_full"), path
    assert client.get(dialogue).status_code == 200
    assert client.delete("/api/dialogues").json() == {"deleted": 1}
    turn = client.post("/api/dialogues", json={"text": "Two"}).json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    assert client.post("/api/dialogues", json={"text": "Three"}).status_code == 409
    named = client.put("/api/account", json={"name": "Ann", "password": PASSWORD})
    assert named.json()["user"]["role"] == "user"
    assert client.post("/api/dialogues", json={"text": "Three"}).status_code == 201


@pytest.mark.parametrize("by", ["setting", "start"])
def test_where_the_door_is_closed_guests_keep_what_they_have_and_say_nothing_more(
    client: TestClient, site: Any, by: str
) -> None:
    turn = client.post("/api/dialogues", json={"text": "Hi"}).json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    if by == "setting":
        with site.store.write() as tx:
            change_chat_settings(tx, ChatSettings(guests=False))
    else:
        parts = client.app.state.services
        client.app.state.services = replace(parts, access=replace(parts.access, guests=False))
    rating = {"verdict": "up"}
    for method, path, body in (
        ("POST", "/api/dialogues", {"text": "More"}),
        ("POST", f"/api/messages/{turn['answer_id']}/regenerate", None),
        ("PUT", f"/api/messages/{turn['answer_id']}/rating", rating),
        ("PUT", "/api/account", {"name": "ann", "password": "correct horse battery"}),
    ):
        assert client.request(method, path, json=body).status_code == 403
    assert client.get("/api/account/export").json()["dialogues"][0]["id"] == turn["dialogue_id"]
    assert client.delete(f"/api/dialogues/{turn['dialogue_id']}").status_code == 204
    assert client.request("DELETE", "/api/account", json={}).status_code == 204
    assert client.get("/api/dialogues").status_code == 401


@pytest.mark.parametrize("path", ["/api/account/export", "/api/sessions"])
def test_what_is_ones_own_is_never_kept_by_a_cache(client: TestClient, path: str) -> None:
    assert client.get(path).headers["cache-control"] == "no-store"
