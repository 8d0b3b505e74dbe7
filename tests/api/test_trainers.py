"""What trainers' pages send, sent wrongly: twice, too late, about something that is not theirs."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import func, select, update
from starlette.testclient import TestClient

from tutelage.server import streaming
from tutelage.store import accounts, dialogues, labelling
from tutelage.store.ids import now
from tutelage.store.labelling import LabellingSettings
from tutelage.store.tables import Demonstration, Lease, Ranking, User
from tutelage.web.app import create_app

Trainer = dict[str, str]
GONE = timedelta(seconds=-1)


@pytest.fixture
def web(site: Any) -> Iterator[TestClient]:
    """The pages, two answers to rank at a time, and one conversation to take them from."""
    site.create = create_app
    with site.store.write() as tx:
        owner = accounts.create_guest(tx, consent=True)
        dialogue = dialogues.create_dialogue(tx, owner.id)
        asked = dialogues.add_message(
            tx, dialogue.id, parent_id=None, role="user", content="Why?", author_kind="human"
        )
        dialogues.add_message(
            tx, dialogue.id, parent_id=asked.id, role="assistant", content="So.", author_kind="model"
        )
        labelling.change_labelling_settings(tx, LabellingSettings(candidates=2))
    with site.client() as client:
        yield client


@pytest.fixture
def one(site: Any) -> Trainer:
    return dict(site.session("trainer"))


@pytest.fixture
def other(site: Any) -> Trainer:
    return dict(site.session("trainer"))


def take(web: TestClient, who: Trainer) -> tuple[str | None, list[str]]:
    """A task's id and those of its candidates."""
    event = json.loads(web.post("/rank/next", headers=who).text.splitlines()[-1])
    if event["task"] is None:
        return None, []
    task = web.get(f"/rank/tasks/{event['task']}", headers=who | {"accept": "application/json"}).json()
    return event["task"], [each["id"] for each in task["candidates"]]


def count(site: Any, table: type) -> int:
    with site.store.read() as tx:
        return tx.scalar(select(func.count()).select_from(table)) or 0


def expire(site: Any, task_id: str) -> None:
    with site.store.write() as tx:
        holder = tx.scalar(select(User.id).where(User.role == "trainer").order_by(User.id).limit(1))
        labelling.renew_lease(tx, task_id, holder, lease=GONE)


def test_an_order_of_unknown_answers_is_refused_and_the_task_stays(
    site: Any, web: TestClient, one: Trainer
) -> None:
    task, ids = take(web, one)
    wrong: list[Any] = [
        [["x"], ids],
        [ids[:1]],
        [[ids[0]], [ids[0], ids[1]]],
        [[ids[0]], ["00000000-0000-7000-8000-000000000000"]],
    ]
    for groups in wrong:
        answer = web.post(f"/rank/tasks/{task}", json={"groups": groups}, headers=one)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "groups")
    fix = {"candidate": "x", "content": "better"}
    answer = web.post(f"/rank/tasks/{task}", json={"groups": [ids], "fixes": [fix]}, headers=one)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "fixes")
    assert (count(site, Ranking), count(site, Demonstration)) == (0, 0)
    assert web.post(f"/rank/tasks/{task}", json={"groups": [ids]}, headers=one).status_code == 204


def test_an_order_that_is_sent_twice_counts_once(site: Any, web: TestClient, one: Trainer) -> None:
    task, ids = take(web, one)
    fix = {"candidate": ids[0], "content": "better"}
    body = {"groups": [[ids[0]], [ids[1]]], "fixes": [fix]}
    assert web.post(f"/rank/tasks/{task}", json=body, headers=one).status_code == 204
    again = web.post(f"/rank/tasks/{task}", json=body, headers=one)
    assert (again.status_code, again.json()["error"]["code"]) == (409, "conflict")
    assert "Take the next task" in again.json()["error"]["message"]
    assert (count(site, Ranking), count(site, Demonstration)) == (1, 1)


def test_who_comes_back_to_a_task_that_another_took_is_told_so(
    site: Any, web: TestClient, one: Trainer, other: Trainer
) -> None:
    task, ids = take(web, one)
    assert take(web, other) == (None, [])
    expire(site, str(task))
    assert take(web, other) == (task, ids)
    for path, body in (("", {"groups": [ids]}), ("/renew", None)):
        answer = web.post(f"/rank/tasks/{task}{path}", json=body, headers=one)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "conflict")
    assert web.post(f"/rank/tasks/{task}", json={"groups": [ids]}, headers=other).status_code == 204


def test_somebody_elses_task_and_one_that_is_not_there_are_alike(
    web: TestClient, one: Trainer, other: Trainer
) -> None:
    task, ids = take(web, one)
    for name in (task, "nothing"):
        for path, body in (("", {"groups": [ids]}), ("/renew", None), ("/skip", {})):
            answer = web.post(f"/rank/tasks/{name}{path}", json=body, headers=other)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "not_found")


def test_a_task_stays_ones_own_while_a_slow_model_writes_for_it(
    site: Any, web: TestClient, one: Trainer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(streaming, "HEARTBEAT_SECONDS", 0.02)

    def wait(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 10
        while not holds():
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def held() -> bool:
        with site.store.read() as tx:
            found = tx.scalar(select(Lease))
        return found is not None and found.expires > now()

    wait(lambda: "v1" in site.engines)
    site.engines["v1"].delay = 0.1
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(web.post, "/rank/next", headers=one)
        wait(held)
        with site.store.write() as tx:
            tx.execute(update(Lease).values(expires=now() + GONE))
        wait(held)
        site.interrupt()
        *beats, done = map(json.loads, asked.result().text.splitlines())
    assert {"sampled": 0, "of": 1} in beats
    assert done["task"]


def test_a_dialogue_that_is_handed_in_twice_is_one(site: Any, web: TestClient) -> None:
    for role in ("trainer", "operator"):
        who = site.session(role)
        turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": f"For a {role}."}]
        made = web.put("/write/draft", json={"messages": turns}, headers=who).json()["id"]
        for _ in range(2):
            body = {"id": made, "messages": turns}
            assert web.post("/write/submit", json=body, headers=who).status_code == 204
    assert count(site, Demonstration) == 2


def test_a_message_keeps_which_version_suggested_it(site: Any, web: TestClient, one: Trainer) -> None:
    asked = {"role": "user", "content": "Why?"}
    suggested = web.post("/write/suggest", json={"messages": [asked]}, headers=one)
    assert (suggested.headers["x-model-version"], suggested.text) == ("v1", site.answers[0])
    site.registry.publish(kind="chat", model="tiny")
    site.registry.promote("v2")
    shown = {"suggestions": [suggested.text], "taken": suggested.text, "version": "v1"}
    turns = [asked, {"role": "assistant", "content": "Because.", **shown}]
    made = web.put("/write/draft", json={"messages": turns}, headers=one).json()["id"]
    assert "&#34;version&#34;: &#34;v1&#34;" in web.get(f"/write?draft={made}", headers=one).text
    assert web.post("/write/submit", json={"id": made, "messages": turns}, headers=one).status_code == 204
    with site.store.read() as tx:
        [row] = tx.scalars(select(Demonstration))
    kept = row.messages[1]["provenance"]
    assert (kept["model_version"], kept["kind"]) == ("v1", "edited")
    assert row.messages[0]["provenance"]["model_version"] is None


def test_what_is_sent_back_is_on_its_writers_page_with_the_note(
    site: Any, web: TestClient, one: Trainer
) -> None:
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    made = web.put("/write/draft", json={"messages": turns}, headers=one).json()["id"]
    body = {"id": made, "messages": turns}
    assert web.post("/write/submit", json=body, headers=one).status_code == 204
    assert made not in web.get("/write", headers=one).text
    word = {"decision": "sent_back", "note": "Say why & how."}
    path = f"/operate/demonstrations/{made}"
    assert web.post(path, json=word, headers=one).status_code == 403
    assert web.post(path, json=word, headers=site.session("operator")).status_code == 204
    assert made in web.get("/write", headers=one).text
    assert "Say why &amp; how." in web.get(f"/write?draft={made}", headers=one).text
    assert web.post("/write/submit", json=body, headers=one).status_code == 204
    with site.store.read() as tx:
        assert [row.status for row in tx.scalars(select(Demonstration))] == ["submitted"]
