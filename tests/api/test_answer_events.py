"""/api/answers/{id}/events and /stop: streaming, coming back, stopping, dying."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from itertools import pairwise
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.errors import Unavailable
from tutelage.server import streaming
from tutelage.store import accounts, dialogues, tables

STORY = "".join(f"Sentence number {n} of a long story. " for n in range(40))[:510]


def read(lines: Any, *, until: int | None = None) -> list[tuple[int, str, dict[str, Any]]]:
    """Events of a stream that is being read; stops after the first delta that reaches position `until`."""
    events, fields = [], {}
    for line in lines:
        if line and not line.startswith(":"):
            name, _, value = line.partition(": ")
            fields[name] = value
        elif fields:
            events.append((int(fields["id"]), fields["event"], json.loads(fields["data"])))
            fields = {}
            if until is not None and events[-1][0] >= until:
                break
    return events


def text_of(events: list[tuple[int, str, dict[str, Any]]]) -> str:
    return "".join(data["text"] for _, kind, data in events if kind == "delta")


def test_an_answer_streams_while_it_is_written_and_can_be_read_again_from_anywhere(site: Any) -> None:
    site.answers, site.delay = [STORY[:500]], 0.001
    with site.listening() as address, httpx.Client(base_url=address) as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        path = f"/api/answers/{turn['answer_id']}/events"
        with client.stream("GET", path) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            first = read(response.iter_lines(), until=100)
        assert "done" not in [kind for _, kind, _ in first]
        with client.stream("GET", path, headers={"last-event-id": str(first[-1][0])}) as response:
            rest = read(response.iter_lines())
        assert text_of(first) + text_of(rest) == STORY[:500]
        assert [kind for _, kind, _ in rest][-2:] == ["verdict", "done"]
        for after in (0, 37, 500, 501):
            with client.stream("GET", path, params={"after": after}) as response:
                again = read(response.iter_lines())
            assert text_of(again) == STORY[after:500]
            assert again[-1] == rest[-1]


def test_an_answer_is_written_to_its_end_without_a_reader(site: Any) -> None:
    site.answers, site.delay = [STORY[:300]], 0.001
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        row = wait_for_status(site, turn["answer_id"], "complete")
        assert (row.content, row.prompt_tokens, row.completion_tokens) == (STORY[:300], 23, 300)


def test_the_row_is_there_from_the_beginning_and_follows_the_text(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.server.writing.FLUSH_SECONDS", 0.05)
    site.answers, site.delay = [STORY], 0.004
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        row = message(site, turn["answer_id"])
        assert (row.status, row.model_version) == ("running", "v1")
        assert row.sampling["temperature"] == 0.7
        time.sleep(0.6)
        row = message(site, turn["answer_id"])
        assert row.status == "running"
        assert 0 < len(row.content) < len(STORY)
        assert STORY.startswith(row.content)
        client.post(f"/api/answers/{turn['answer_id']}/stop")


def test_stopping_keeps_what_was_written_and_frees_the_slot(site: Any) -> None:
    site.answers, site.delay = [STORY], 0.005
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        time.sleep(0.3)
        assert client.post(f"/api/answers/{turn['answer_id']}/stop").status_code == 204
        events = client.get(f"/api/answers/{turn['answer_id']}/events").text
        assert '"status":"interrupted"' in events
        row = message(site, turn["answer_id"])
        assert (row.status, row.finish_reason) == ("interrupted", None)
        assert row.content
        assert STORY.startswith(row.content)
        assert site.engines["v1"].running == 0
        assert client.post(f"/api/answers/{turn['answer_id']}/stop").status_code == 204
        assert message(site, turn["answer_id"]).content == row.content


def test_a_question_is_no_answer(client: TestClient) -> None:
    turn = client.post("/api/dialogues", json={"text": "Hi"}).json()
    assert client.get(f"/api/answers/{turn['user_message_id']}/events").status_code == 400
    assert client.post(f"/api/answers/{turn['user_message_id']}/stop").status_code == 400


@pytest.mark.sqlite  # of a shared store, another server may be writing it
def test_after_a_crash_the_answer_is_interrupted_and_nothing_is_lost(site: Any) -> None:
    with site.store.write() as tx:
        user = accounts.create_guest(tx)
        cookie = {"cookie": f"tutelage={accounts.open_session(tx, user.id, days=1)}"}
        answer = unfinished_answer(tx, user.id)
        dialogues.flush_answer(tx, answer.id, content="Once upon")
    with site.client() as client:
        assert message(site, answer.id).status == "interrupted"
        events = client.get(f"/api/answers/{answer.id}/events", headers=cookie).text
        assert '"text":"Once upon"' in events
        assert '"status":"interrupted"' in events
        more = client.post(
            f"/api/dialogues/{answer.dialogue_id}/messages", json={"text": "Go on"}, headers=cookie
        )
        assert more.status_code == 201


def test_a_second_server_on_the_same_file_breaks_nothing_off(site: Any) -> None:
    site.answers, site.delay = [STORY], 0.002
    with site.client() as first:
        turn = first.post("/api/dialogues", json={"text": "Tell"}).json()
        with site.client():
            assert message(site, turn["answer_id"]).status == "running"
        assert '"status":"complete"' in first.get(f"/api/answers/{turn['answer_id']}/events").text


@pytest.mark.sqlite
def test_a_server_that_cannot_tidy_up_still_starts(site: Any) -> None:
    lock = site.store.place.with_name("tutelage.db.servers")
    lock.mkdir()
    with site.client() as client:
        assert client.get("/api/dialogues").status_code == 200
    lock.rmdir()
    with site.client() as client:
        assert client.get("/api/dialogues").status_code == 200
        assert lock.stat().st_mode & 0o777 == 0o600


def test_an_answer_that_another_process_writes_is_followed_by_its_row(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.server.writing.FLUSH_SECONDS", 0.05)
    with site.listening() as address:
        headers = site.session("guest")
        with httpx.Client(base_url=address, headers=headers) as client:
            dialogue_id = client.post("/api/dialogues", json={"text": "Hi"}).json()["dialogue_id"]
            time.sleep(0.3)
            with site.store.write() as tx:
                question = dialogues.add_message(
                    tx, dialogue_id, parent_id=None, role="user", content="Tell", author_kind="human"
                )
                answer = dialogues.start_answer(
                    tx, dialogue_id, parent_id=question.id, model_version="v1", sampling={}
                )
            with client.stream("GET", f"/api/answers/{answer.id}/events") as response:
                lines = response.iter_lines()
                with site.store.write() as tx:
                    dialogues.flush_answer(tx, answer.id, content="Once")
                first = read(lines, until=4)
                with site.store.write() as tx:
                    dialogues.finish_answer(
                        tx, answer.id, content="Once more", status="complete", finish_reason="stop"
                    )
                rest = read(lines)
    assert (text_of(first), text_of(rest)) == ("Once", " more")
    assert rest[-1][1] == "done"


def test_a_model_that_fails_interrupts_the_answer_and_says_so(site: Any) -> None:
    with site.client() as client:
        client.get("/api/model")

        async def fail(prompt_ids: Any, sampling: Any) -> Any:
            raise RuntimeError("secret words of the user")
            yield

        wait_until_loaded(site)
        site.engines["v1"].generate = fail
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        events = client.get(f"/api/answers/{turn['answer_id']}/events").text
        assert "event: error" in events or '"status":"interrupted"' in events
        assert "secret" not in events
        assert wait_for_status(site, turn["answer_id"], "interrupted").content == ""


def test_an_answer_waits_for_a_disk_that_is_full(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tutelage.server.writing.FLUSH_SECONDS", 0.01)
    finish, tries, beats, site.delay = dialogues.finish_answer, [], [], 0.005

    def no_room(*asked: Any, **text: Any) -> Any:
        beats.append(text)
        raise Unavailable("The disk is full.")

    def full(*asked: Any, **end: Any) -> Any:
        tries.append(end)
        if len(tries) < 4:
            raise Unavailable("The disk is full.")
        return finish(*asked, **end)

    monkeypatch.setattr(dialogues, "finish_answer", full)
    monkeypatch.setattr(dialogues, "flush_answer", no_room)
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        with client.stream("GET", f"/api/answers/{turn['answer_id']}/events") as stream:
            events = read(stream.iter_lines())
    assert (events[-1][1], text_of(events)) == ("done", site.answers[0])
    row = message(site, turn["answer_id"])
    assert (row.status, row.content) == ("complete", site.answers[0])
    assert len(beats) > 1
    assert caplog.text.count(row.id) == 2, "once while it comes, once at its end"


def test_readers_learn_of_the_end_even_where_it_cannot_be_written_down(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nobody has foreseen this")

    site.delay = 0.01
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        monkeypatch.setattr(dialogues, "finish_answer", fail)
        with client.stream("GET", f"/api/answers/{turn['answer_id']}/events") as stream:
            events = read(stream.iter_lines())
    assert events[-1][1] == "error"


def test_silence_is_filled_with_comments(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.05)
    site.answers, site.delay = ["Hi."], 0.2
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        stream = client.get(f"/api/answers/{turn['answer_id']}/events").text
        assert stream.count(": still here") >= 3
        assert stream.rstrip().splitlines()[-2] == "event: done"


def test_answers_whose_writer_has_died_are_reaped_while_the_server_runs(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.server.app.DEAD_AFTER", timedelta(seconds=0.1))
    monkeypatch.setattr("tutelage.server.turn.Turns.reap.__kwdefaults__", {"older_than": timedelta(0)})
    with site.client():
        with site.store.write() as tx:
            left = unfinished_answer(tx, accounts.create_guest(tx).id)
        wait_for_status(site, left.id, "interrupted")


def test_a_database_that_was_away_makes_no_answer_of_another_server_dead(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None could show that it lived. When the database is back, they have a while to do it."""
    monkeypatch.setattr("tutelage.server.app.DEAD_AFTER", timedelta(seconds=0.01))
    monkeypatch.setattr("tutelage.server.app.BACK_SECONDS", 0.5)
    looks: list[float] = []

    async def reap(*_: Any, **rest: Any) -> None:
        if not rest:  # none at the start
            looks.append(time.monotonic())
            if len(looks) == 2:
                raise Unavailable("The database cannot be reached.")

    monkeypatch.setattr("tutelage.server.turn.Turns.reap", reap)
    with site.client():
        while len(looks) < 4:
            time.sleep(0.01)
    waited = [after - before for before, after in pairwise(looks)]
    assert waited[1] >= 0.5 > max(waited[0], waited[2])


def test_an_answer_that_nobody_is_to_have_ends_without_a_complaint(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("tutelage.server.writing.FLUSH_SECONDS", 0.02)
    site.answers, site.delay = [STORY], 0.005
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        assert client.request("DELETE", "/api/account", json={}).status_code == 204
        deadline = time.monotonic() + 10
        while site.engines["v1"].running:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert turn["answer_id"] not in caplog.text


def test_the_text_index_is_tidied_while_the_server_runs(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = threading.Semaphore(0)
    monkeypatch.setattr("tutelage.server.app.TIDY_SECONDS", 0.01)
    monkeypatch.setattr("tutelage.server.app.TIDY_PAUSE", 0.01)
    monkeypatch.setattr("tutelage.store.search.tidy", lambda tx: looked.release() is None)
    with site.client():
        assert all(looked.acquire(timeout=10) for _ in range(3))


def test_a_process_that_has_slept_does_not_take_its_own_answers_for_dead(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.server.writing.FLUSH_SECONDS", 1000)
    monkeypatch.setattr("tutelage.server.app.DEAD_AFTER", timedelta(seconds=0.6))
    monkeypatch.setattr(
        "tutelage.server.turn.Turns.reap.__kwdefaults__", {"older_than": timedelta(seconds=0.5)}
    )
    site.answers, site.delay = [STORY[:200]], 0.01
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
        time.sleep(1)
        assert message(site, turn["answer_id"]).status == "running"
        assert '"status":"complete"' in client.get(f"/api/answers/{turn['answer_id']}/events").text


def test_ending_the_server_interrupts_what_does_not_end_by_itself(
    site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tutelage.server.turn.Turns.close.__kwdefaults__", {"grace": 0.2})
    site.answers, site.delay = [STORY], 0.005
    with site.client() as client:
        turn = client.post("/api/dialogues", json={"text": "Tell"}).json()
    row = message(site, turn["answer_id"])
    assert row.status == "interrupted"
    assert STORY.startswith(row.content)


def unfinished_answer(tx: Any, owner_id: str) -> tables.Message:
    """The row of an answer that nobody is writing."""
    dialogue = dialogues.create_dialogue(tx, owner_id)
    question = dialogues.add_message(
        tx, dialogue.id, parent_id=None, role="user", content="Tell", author_kind="human"
    )
    return dialogues.start_answer(tx, dialogue.id, parent_id=question.id, model_version="v1", sampling={})


def message(site: Any, message_id: str) -> tables.Message:
    with site.store.read() as tx:
        row = tx.get(tables.Message, message_id)
        assert row is not None
        return row


def wait_for_status(site: Any, message_id: str, status: str) -> tables.Message:
    deadline = time.monotonic() + 10
    while (row := message(site, message_id)).status != status:
        assert time.monotonic() < deadline, row.status
        time.sleep(0.02)
    return row


def wait_until_loaded(site: Any) -> None:
    deadline = time.monotonic() + 10
    while "v1" not in site.engines:
        assert time.monotonic() < deadline
        time.sleep(0.01)
