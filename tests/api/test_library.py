"""What people do with their dialogues: find, share, take along, bring in, compare."""

from __future__ import annotations

import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.server.chatgpt import MOST_REPEATED, read_conversation
from tutelage.server.library import download


def answered(client: TestClient, text: str = "Hi", **more: object) -> dict[str, Any]:
    started = client.post("/api/dialogues", json={"text": text, **more})
    assert started.status_code == 201, started.text
    turn: dict[str, Any] = started.json()
    client.get(f"/api/answers/{turn['answer_id']}/events")
    return turn


def node(name: str, parent: str | None, role: str = "", text: str = "", **more: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    message = {"author": {"role": role}, "content": content, "recipient": "all", **more} if role else None
    return {"id": name, "parent": parent, "message": message, "children": []}


def conversation(*nodes: dict[str, Any], **more: Any) -> dict[str, Any]:
    mapping = {each["id"]: each for each in nodes}
    for each in nodes:
        if each["parent"]:
            mapping[each["parent"]]["children"].append(each["id"])
    return {
        "title": "Old chat",
        "create_time": 1700000000.5,
        "conversation_id": "c1",
        "mapping": mapping,
        **more,
    }


OLD = conversation(
    node("root", None),
    node("system", "root", "system", ""),
    node("q", "system", "user", "What is a quokka?"),
    node("tool", "q", "assistant", "search('quokka')", recipient="browser"),
    node("found", "tool", "tool", "a long page"),
    node("a1", "found", "assistant", "A small", metadata={"model_slug": "gpt-x"}),
    node("a2", "a1", "assistant", "marsupial."),
    node("other", "q", "assistant", "No idea."),
    node("thanks", "a2", "user", "Thanks!"),
)


def test_a_deleted_dialogue_can_be_taken_back(client: TestClient) -> None:
    name = answered(client)["dialogue_id"]
    client.delete(f"/api/dialogues/{name}")
    assert client.get(f"/api/dialogues/{name}").status_code == 404
    assert client.post(f"/api/dialogues/{name}/restore").json()["dialogue"]["id"] == name
    assert client.get(f"/api/dialogues/{name}").status_code == 200


def test_an_archived_dialogue_is_listed_apart(client: TestClient) -> None:
    name = answered(client)["dialogue_id"]
    assert client.patch(f"/api/dialogues/{name}", json={"archived": True}).json()["dialogue"]["archived"]
    assert client.get("/api/dialogues").json()["dialogues"] == []
    [row] = client.get("/api/dialogues", params={"archived": True}).json()["dialogues"]
    assert row["id"] == name


def test_words_are_found_in_ones_own_dialogues_only(client: TestClient) -> None:
    turn = answered(client, "Tell me about the 彩虹")
    [hit] = client.get("/api/search", params={"q": "彩虹"}).json()["found"]
    assert hit["dialogue"]["id"] == turn["dialogue_id"]
    assert hit["excerpt"] == "Tell me about the 彩虹"
    client.cookies.clear()
    assert client.get("/api/search", params={"q": "彩虹"}).json()["found"] == []


def test_a_dialogue_as_a_file(client: TestClient) -> None:
    turn = answered(client, "Tell me about 彩虹/rainbows")
    path = f"/api/dialogues/{turn['dialogue_id']}/export"
    written = client.get(path)
    assert written.text.startswith("# Tell me about 彩虹/rainbows\n\n## User\n\nTell me")
    assert "## Assistant\n\nHello there. How can I help?" in written.text
    assert written.headers["content-disposition"].startswith(
        'attachment; filename="Tell me about rainbows.md"'
    )
    whole = client.get(path, params={"format": "json"}).json()
    assert [row["role"] for row in whole["messages"]] == ["user", "assistant"]
    assert client.get(path, params={"format": "html"}).status_code == 400


@pytest.mark.parametrize("name", ["", "../../etc/passwd", 'a"\r\nx: y', "彩虹", "\ud800", "."])
def test_a_file_name_stays_in_its_header(name: str) -> None:
    header = download(name)["content-disposition"]
    assert header.isascii()
    assert header.isprintable()
    assert header.count('"') == 2
    assert "/" not in header


def test_a_chatgpt_export_comes_in_once_with_its_branches(client: TestClient) -> None:
    sent = {"conversations": [OLD, conversation(node("root", None)), "nonsense"]}
    assert client.post("/api/import", json=sent).json() == {"imported": 1, "known": 0, "empty": 2}
    assert client.post("/api/import", json=sent).json() == {"imported": 0, "known": 1, "empty": 2}
    [row] = client.get("/api/dialogues").json()["dialogues"]
    assert (row["title"], row["created"][:10]) == ("Old chat", "2023-11-14")
    messages = client.get(f"/api/dialogues/{row['id']}/export?format=json").json()["messages"]
    texts = {(each["role"], each["content"]) for each in messages}
    assert texts == {
        ("user", "What is a quokka?"),
        ("assistant", "A small\n\nmarsupial."),
        ("assistant", "No idea."),
        ("user", "Thanks!"),
    }
    assert len(client.get("/api/search", params={"q": "marsupial"}).json()["found"]) == 1
    client.cookies.clear()
    assert client.post("/api/import", json=sent).json()["imported"] == 1


def test_a_small_file_does_not_become_a_large_chat() -> None:
    branches = [node(f"b{place}", "q", "user", f"end {place}") for place in range(300)]
    made = read_conversation(conversation(node("q", None, "user", "x" * 30_000), *branches))
    assert made is not None
    texts = [each.content for each in made.nodes]
    assert sum(map(len, texts)) < 30_000 + MOST_REPEATED + 300 * len("\n\nend 300")
    assert texts[1] == "x" * 30_000 + "\n\nend 0"
    assert all(f"end {place}" in text for place, text in enumerate(texts[1:]))


def test_an_imported_chat_can_be_continued_and_trains_nothing(client: TestClient, site: Any) -> None:
    from tutelage.store.export import prompts

    client.post("/api/import", json={"conversations": [OLD]})
    [row] = client.get("/api/dialogues").json()["dialogues"]
    *_, last = client.get(f"/api/dialogues/{row['id']}").json()["messages"]
    assert client.post(f"/api/messages/{last['id']}/regenerate").status_code == 201
    with site.store.read() as tx:
        assert list(prompts(tx)) == []


def test_two_answers_are_compared(client: TestClient) -> None:
    first = answered(client)
    second = client.post(f"/api/messages/{first['answer_id']}/regenerate").json()
    client.get(f"/api/answers/{second['answer_id']}/events")
    path = f"/api/picks/{first['answer_id']}/{second['answer_id']}"
    assert client.put(path, json={"verdict": "second"}).json()["pick"]["verdict"] == "second"
    assert client.put(path, json={"verdict": "better"}).status_code == 400
    assert client.delete(path).status_code == 204


def test_a_temporary_chat_is_in_no_list(client: TestClient) -> None:
    turn = answered(client, "Psst", temporary=True)
    assert client.get("/api/dialogues").json()["dialogues"] == []
    assert client.get("/api/search", params={"q": "Psst"}).json()["found"] == []
    shown = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()
    assert shown["dialogue"]["temporary"]
    assert client.put(f"/api/dialogues/{turn['dialogue_id']}/share", json={}).status_code == 400


def test_deleting_everything_is_for_good(client: TestClient) -> None:
    name = answered(client)["dialogue_id"]
    assert client.delete("/api/dialogues").json() == {"deleted": 1}
    assert client.post(f"/api/dialogues/{name}/restore").status_code == 404


def test_export_of_everything_is_whole(client: TestClient) -> None:
    turn = answered(client, 'With "quotes" and 字')
    client.put(f"/api/messages/{turn['answer_id']}/rating", json={"verdict": "up", "note": "fine"})
    kept = json.loads(client.get("/api/account/export").text)
    assert [row["title"] for row in kept["dialogues"]] == ['With "quotes" and 字']
    assert [row["note"] for row in kept["ratings"]] == ["fine"]
    assert kept["account"]["role"] == "guest"
    client.delete("/api/dialogues")
    assert json.loads(client.get("/api/account/export").text)["dialogues"] == []
