"""/api/dialogues: beginning, listing, showing, renaming and deleting."""

from __future__ import annotations

import time
from typing import Any

from starlette.testclient import TestClient


def answered(client: TestClient, text: str = "Hi", **more: object) -> dict[str, str]:
    started = client.post("/api/dialogues", json={"text": text, **more})
    assert started.status_code == 201, started.text
    turn: dict[str, str] = started.json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    return turn


def test_a_first_message_makes_a_guest_a_dialogue_and_an_answer(client: TestClient) -> None:
    turn = answered(client, "What is a rainbow?\nIn short.")
    shown = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()
    assert shown["dialogue"]["title"] == "What is a rainbow?"
    question, answer = shown["messages"]
    assert (question["id"], question["content"]) == (turn["user_message_id"], "What is a rainbow?\nIn short.")
    assert (question["status"], question["verdict"]["state"]) == ("complete", "ok")
    assert (answer["id"], answer["content"]) == (turn["answer_id"], "Hello there. How can I help?")
    assert (answer["status"], answer["finish_reason"], answer["model_version"]) == ("complete", "stop", "v1")
    assert client.get("/api/me").json()["user"]["role"] == "guest"


def test_the_same_key_again_is_the_same_turn(client: TestClient) -> None:
    first = answered(client, idempotency_key="k1")
    again = client.post("/api/dialogues", json={"text": "Hi", "idempotency_key": "k1"}).json()
    assert again == first
    assert len(client.get("/api/dialogues").json()["dialogues"]) == 1
    assert answered(client, idempotency_key="k2")["dialogue_id"] != first["dialogue_id"]


def test_somebody_elses_key_is_not_mine(client: TestClient) -> None:
    first = answered(client, idempotency_key="k1")
    client.cookies.clear()
    assert answered(client, idempotency_key="k1")["dialogue_id"] != first["dialogue_id"]


def test_dialogues_are_listed_last_changed_first_and_by_pages(client: TestClient) -> None:
    ids = [answered(client, f"Question {n}")["dialogue_id"] for n in range(3)]
    first = client.get("/api/dialogues", params={"limit": 2}).json()["dialogues"]
    assert [each["id"] for each in first] == [ids[2], ids[1]]
    rest = client.get("/api/dialogues", params={"limit": 2, "before": ids[1]}).json()["dialogues"]
    assert [each["id"] for each in rest] == [ids[0]]


def test_a_title_can_be_changed(client: TestClient) -> None:
    dialogue_id = answered(client)["dialogue_id"]
    renamed = client.patch(f"/api/dialogues/{dialogue_id}", json={"title": " Rainbows "})
    assert renamed.json()["dialogue"]["title"] == "Rainbows"
    assert client.patch(f"/api/dialogues/{dialogue_id}", json={"title": " "}).status_code == 400


def test_a_deleted_dialogue_is_gone(client: TestClient) -> None:
    dialogue_id = answered(client)["dialogue_id"]
    assert client.delete(f"/api/dialogues/{dialogue_id}").status_code == 204
    assert client.get(f"/api/dialogues/{dialogue_id}").status_code == 404
    assert client.get("/api/dialogues").json() == {"dialogues": []}


def test_deleting_while_an_answer_is_being_written_ends_the_writing(site) -> None:  # type: ignore[no-untyped-def]
    site.answers, site.delay = ["word " * 500], 0.01
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Hi"}).json()
        assert client.delete(f"/api/dialogues/{turn['dialogue_id']}").status_code == 204
        deadline = time.monotonic() + 5
        while site.engines["v1"].running:
            assert time.monotonic() < deadline
            time.sleep(0.05)


def test_empty_texts_are_refused_before_anything_is_written(client: TestClient) -> None:
    for text in ("", " \n ", "\x00"):
        refused = client.post("/api/dialogues", json={"text": text})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "text")
    assert client.get("/api/dialogues").json() == {"dialogues": []}


def test_a_message_that_never_fits_is_refused_with_a_way_out(client: TestClient) -> None:
    refused = client.post("/api/dialogues", json={"text": "a" * 2000})
    error = refused.json()["error"]
    assert (refused.status_code, error["code"]) == (400, "context_length_exceeded")
    assert "Shorten it" in error["message"]
    assert client.get("/api/dialogues").json() == {"dialogues": []}


def test_a_full_line_refuses_says_when_to_come_back_and_keeps_nothing(site: Any, client: TestClient) -> None:
    services: Any = client.app.state.services  # type: ignore[attr-defined]
    services.turns.line.longest = 0
    refused = client.post("/api/dialogues", json={"text": "Hi"})
    assert (refused.status_code, refused.headers["retry-after"]) == (503, "30")
    assert refused.json()["error"]["code"] == "at_capacity"
    assert client.get("/api/dialogues").json() == {"dialogues": []}
