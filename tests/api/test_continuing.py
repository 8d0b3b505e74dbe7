"""/api/messages/{id}/continue: an answer that was cut off goes on in the same message."""

from __future__ import annotations

import json
import shutil
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.dialogue import Message
from tutelage.server.turn import ANSWERS_AT_ONCE
from tutelage.store import usage
from tutelage.store.tables import Message as Row
from tutelage.store.usage import ChatSettings

LONG = "".join(f"Sentence number {n} of a long story. " for n in range(60))
END = "and so it ends."


@pytest.fixture(autouse=True)
def story(site: Any) -> None:
    """Answers that are longer than an answer may be, each followed by an end."""
    site.answers, site.context_length = (LONG, END), 3000


def ask(client: TestClient, **more: Any) -> dict[str, Any]:
    """A question whose answer is cut off."""
    turn: dict[str, Any] = client.post("/api/dialogues", json={"text": "Tell", **more}).json()
    follow(client, turn)
    return turn


def follow(client: TestClient, turn: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The text of an answer as a reader from the beginning has it, and how it ended."""
    text, ended = "", dict[str, Any]()
    for block in client.get(f"/api/answers/{turn['answer_id']}/events").text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields.get("event") == "delta":
            text += json.loads(fields["data"])["text"]
        if fields.get("event") in ("done", "error"):
            ended = json.loads(fields["data"])
    return text, ended


def go_on(client: TestClient, turn: dict[str, Any]) -> Any:
    return client.post(f"/api/messages/{turn['answer_id']}/continue")


def row_of(site: Any, turn: dict[str, Any]) -> Row:
    with site.store.read() as tx:
        row: Row = tx.get_one(Row, turn["answer_id"])
        return row


@pytest.mark.parametrize("temporary", [False, True])
def test_an_answer_goes_on_where_it_was_cut_off(site: Any, client: TestClient, temporary: bool) -> None:
    turn = ask(client, temporary=temporary)
    before = row_of(site, turn)
    assert (before.status, before.finish_reason) == ("complete", "length")
    assert LONG.startswith(before.content)
    started = go_on(client, turn)
    assert started.status_code == 201
    same = ("dialogue_id", "user_message_id", "answer_id", "input_verdict")
    assert {name: started.json()[name] for name in same} == {name: turn[name] for name in same}
    text, ended = follow(client, turn)
    assert text == before.content + END
    assert (ended["status"], ended["finish_reason"], ended["model_version"]) == ("complete", "stop", "v1")
    shown = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()["messages"]
    assert [message["content"] for message in shown] == ["Tell", text]
    begun = site.renderer.completion(before.content)
    assert site.engines["v1"].prompts[-1] == [*site.renderer.prompt([Message("user", "Tell")]), *begun]
    after = row_of(site, turn)
    assert after.prompt_tokens == before.prompt_tokens
    assert after.completion_tokens == len(begun) + len(site.renderer.completion(END))
    assert go_on(client, turn).status_code == 409


def test_what_was_stopped_goes_on_too_and_may_be_answered_again(site: Any, client: TestClient) -> None:
    site.engines["v1"].delay = 0.01
    turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
    with client.stream("GET", f"/api/answers/{turn['answer_id']}/events") as response:
        next(line for line in response.iter_lines() if "Sentence" in line)
    assert go_on(client, turn).json()["error"]["message"].startswith("The answer is still being written.")
    client.post(f"/api/answers/{turn['answer_id']}/stop")
    said, ended = follow(client, turn)
    assert ended["status"] == "interrupted"
    site.interrupt()
    assert go_on(client, turn).status_code == 201
    assert follow(client, turn)[0] == said + END
    again = client.post(f"/api/messages/{turn['answer_id']}/regenerate").json()
    assert again["answer_id"] != turn["answer_id"]


def test_an_answer_that_others_follow_stays_as_it_is(client: TestClient) -> None:
    turn = ask(client)
    path = f"/api/dialogues/{turn['dialogue_id']}/messages"
    follow(client, client.post(path, json={"text": "Go on"}).json())
    refused = go_on(client, turn)
    assert refused.status_code == 409
    assert "gone on after this answer" in refused.json()["error"]["message"]


def test_it_counts_like_an_answer_and_is_refused_where_none_is_left(site: Any, client: TestClient) -> None:
    turn = ask(client)
    with site.store.write() as tx:
        usage.change_chat_settings(tx, ChatSettings(guest_limit=2))
    assert go_on(client, turn).json()["remaining"] == 0
    assert follow(client, turn)[1]["finish_reason"] == "stop"
    with site.store.write() as tx:
        usage.change_chat_settings(tx, ChatSettings(guest_limit=3))
    other = ask(client)
    before = row_of(site, other)
    assert go_on(client, other).status_code == 429
    after = row_of(site, other)
    assert (after.status, after.content, after.provenance) == (
        before.status,
        before.content,
        before.provenance,
    )


def test_it_goes_on_by_the_version_that_began_it_or_not_at_all(site: Any, client: TestClient) -> None:
    site.engines["v1"].script((LONG, LONG, END))
    turns = [ask(client), ask(client)]
    site.registry.publish(kind="chat", model="tiny")
    site.registry.promote("v2")
    assert go_on(client, turns[0]).status_code == 201
    assert follow(client, turns[0])[1]["model_version"] == "v1"
    shutil.rmtree(site.registry.folder / "v1")
    refused = go_on(client, turns[1])
    assert refused.status_code == 409
    assert "version that began this answer" in refused.json()["error"]["message"]
    assert row_of(site, turns[1]).finish_reason == "length"


def test_an_answer_that_fills_the_context_says_so(site: Any, client: TestClient) -> None:
    site.engines["v1"].context_length = 300
    turn = ask(client)
    refused = go_on(client, turn)
    assert refused.status_code == 409
    assert "as long as the model can read" in refused.json()["error"]["message"]
    assert row_of(site, turn).status == "complete"


def test_what_is_blocked_on_the_way_is_hidden_whole(site: Any, client: TestClient) -> None:
    site.engines["v1"].script((LONG, "and then a murder. " * 9))
    turn = ask(client)
    assert go_on(client, turn).status_code == 201
    follow(client, turn)
    text, ended = follow(client, turn)
    assert (text, ended["status"], ended["finish_reason"]) == ("", "blocked", "content_filter")
    assert go_on(client, turn).status_code == 409


def test_places_are_counted(site: Any, client: TestClient) -> None:
    turn = ask(client)
    site.engines["v1"].delay = 0.05
    running = [client.post("/api/dialogues", json={"text": "Tell"}).json() for _ in range(ANSWERS_AT_ONCE)]
    assert go_on(client, turn).status_code == 429
    for each in running:
        client.post(f"/api/answers/{each['answer_id']}/stop")
    site.interrupt()
