"""/api/dialogues/{id}/messages and /api/messages/{id}/regenerate: the tree of a dialogue."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient

from tutelage.dialogue import Message
from tutelage.store import tables


class Chat:
    """One user's dialogue, driven through the API."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self.id = ""

    def say(self, text: str, **more: Any) -> dict[str, Any]:
        path = f"/api/dialogues/{self.id}/messages" if self.id else "/api/dialogues"
        turn = self.client.post(path, json={"text": text, **more})
        assert turn.status_code == 201, turn.text
        self.id = turn.json()["dialogue_id"]
        return self.wait(turn.json())

    def regenerate(self, message_id: str) -> dict[str, Any]:
        return self.wait(self.client.post(f"/api/messages/{message_id}/regenerate").json())

    def wait(self, turn: dict[str, Any]) -> dict[str, Any]:
        turn["events"] = self.client.get(f"/api/answers/{turn['answer_id']}/events").text
        return turn

    def thread(self, leaf_id: str | None = None) -> list[dict[str, Any]]:
        params = {"leaf_id": leaf_id} if leaf_id else {}
        shown = self.client.get(f"/api/dialogues/{self.id}", params=params)
        messages: list[dict[str, Any]] = shown.json()["messages"]
        return messages


def last_prompt(site: Any) -> str:
    """What the model was asked last, roles and all."""
    decoded: str = site.renderer.decode(site.engines["v1"].prompts[-1])
    return decoded


def prompt_of(site: Any, *contents: str) -> str:
    roles = ("user", "assistant")
    messages = [Message(roles[i % 2], content) for i, content in enumerate(contents)]  # type: ignore[arg-type]
    decoded: str = site.renderer.decode(site.renderer.prompt(messages))
    return decoded


def test_the_model_reads_the_whole_dialogue(site: Any, client: TestClient) -> None:
    chat = Chat(client)
    chat.say("One")
    chat.say("Two")
    assert [each["content"] for each in chat.thread()][::2] == ["One", "Two"]
    assert last_prompt(site) == prompt_of(site, "One", "Hello there. How can I help?", "Two")


def test_a_parent_of_null_edits_the_first_message(site: Any, client: TestClient) -> None:
    chat = Chat(client)
    first = chat.say("One")
    edited = chat.say("Eins", parent_id=None)
    thread = chat.thread()
    assert thread[0]["content"] == "Eins"
    assert thread[0]["siblings"] == [first["user_message_id"], edited["user_message_id"]]
    assert last_prompt(site) == prompt_of(site, "Eins")
    assert chat.thread(first["answer_id"])[0]["content"] == "One"


def test_a_regenerated_answer_is_a_sibling(site: Any, client: TestClient) -> None:
    chat = Chat(client)
    first = chat.say("One")
    second = chat.regenerate(first["answer_id"])
    assert second["user_message_id"] == first["user_message_id"]
    assert chat.thread()[1]["siblings"] == [first["answer_id"], second["answer_id"]]
    assert last_prompt(site) == prompt_of(site, "One")


def test_only_an_answer_can_be_followed(client: TestClient) -> None:
    chat = Chat(client)
    turn = chat.say("One")
    refused = client.post(
        f"/api/dialogues/{chat.id}/messages", json={"text": "Two", "parent_id": turn["user_message_id"]}
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "parent_id")


def test_a_parent_in_another_dialogue_is_not_found(client: TestClient) -> None:
    other = Chat(client).say("One")
    chat = Chat(client)
    chat.say("One")
    refused = client.post(
        f"/api/dialogues/{chat.id}/messages", json={"text": "Two", "parent_id": other["answer_id"]}
    )
    assert refused.status_code == 404


def test_an_answer_under_way_cannot_be_followed_or_regenerated(site: Any) -> None:
    site.answers, site.delay = ["word " * 100], 0.02
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Hi"}).json()
        messages = f"/api/dialogues/{turn['dialogue_id']}/messages"
        assert client.post(messages, json={"text": "Two"}).status_code == 409
        assert client.post(f"/api/messages/{turn['answer_id']}/regenerate").status_code == 409
        client.post(f"/api/answers/{turn['answer_id']}/stop")


def test_old_turns_without_room_are_left_out_and_the_reader_is_told(site: Any) -> None:
    site.context_length = 400
    with site.client() as client:
        chat = Chat(client)
        for text in ("a" * 60, "b" * 60, "c" * 60):
            chat.say(text)
        turn = chat.say("d" * 60)
        prompt = last_prompt(site)
        assert "dddd" in prompt
        assert "cccc" in prompt
        assert "aaaa" not in prompt
        assert '"dropped_messages":2' in turn["events"]
        again = client.get(f"/api/answers/{turn['answer_id']}/events").text
        assert '"dropped_messages":2' in again


def test_a_blocked_question_is_kept_unanswered_and_leaves_the_context(site: Any, client: TestClient) -> None:
    chat = Chat(client)
    chat.say("One")
    asked = len(site.engines["v1"].prompts)
    blocked = chat.say("Plan a murder")
    assert blocked["input_verdict"]["state"] == "blocked"
    question, answer = chat.thread()[2:]
    assert (question["content"], question["status"]) == ("Plan a murder", "blocked")
    assert (answer["content"], answer["status"], answer["finish_reason"]) == ("", "blocked", "content_filter")
    assert '"status":"blocked"' in blocked["events"]
    assert len(site.engines["v1"].prompts) == asked
    chat.say("Two")
    assert last_prompt(site) == prompt_of(site, "One", "Hello there. How can I help?", "Two")


def test_a_blocked_question_is_not_regenerated(client: TestClient) -> None:
    chat = Chat(client)
    blocked = chat.say("Plan a murder")
    for message_id in (blocked["answer_id"], blocked["user_message_id"]):
        assert client.post(f"/api/messages/{message_id}/regenerate").status_code == 400


def test_a_blocked_answer_is_cut_hidden_and_leaves_the_context(site: Any) -> None:
    harmless = "This is a harmless beginning of an answer. "
    site.answers = [f"{harmless}Now comes the murder that nobody should read. And more of it."]
    with site.client() as client:
        chat = Chat(client)
        turn = chat.say("Tell me")
        assert "murder" not in turn["events"]
        assert '"finish_reason":"content_filter"' in turn["events"]
        answer = chat.thread()[1]
        assert (answer["content"], answer["status"], answer["verdict"]["state"]) == ("", "blocked", "blocked")
        assert "murder" not in client.get(f"/api/answers/{turn['answer_id']}/events").text
        with site.store.read() as tx:
            assert (
                "murder" in tx.get(tables.Message, turn["answer_id"]).content
            )  # for those who review reports
        site.engines["v1"].prompts.clear()
        chat.say("Go on")
        assert last_prompt(site) == prompt_of(site, "Go on")


def test_nobody_may_have_many_answers_written_at_once(site: Any) -> None:
    site.answers, site.delay = ["word " * 100], 0.02
    with site.client() as client:
        turns = [client.post("/api/dialogues", json={"text": "Hi"}) for _ in range(4)]
        refused = client.post("/api/dialogues", json={"text": "Hi"})
        assert refused.status_code == 429
        assert int(refused.headers["retry-after"]) >= 1
        client.cookies.clear()
        assert client.post("/api/dialogues", json={"text": "Hi"}).status_code == 201
        assert all(turn.status_code == 201 for turn in turns)
        site.interrupt()
