"""Two answers to one question: both are written, counted and told apart, and the chosen one goes on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest
from starlette.testclient import TestClient

from tutelage.errors import InvalidRequest, ModelError
from tutelage.server.turn import ANSWERS_AT_ONCE
from tutelage.store import accounts, experiments, picks
from tutelage.store.tables import Dialogue, Message, Pick, User
from tutelage.store.usage import ChatSettings, change_chat_settings


@pytest.fixture
def client(site: Any) -> Iterator[TestClient]:
    site.answers = ("The first.", "The second.", "After it.")
    with site.client() as running:
        yield running


def ask_for_two(client: TestClient, text: str = "Hi", **more: Any) -> dict[str, Any]:
    turn: dict[str, Any] = client.post("/api/dialogues", json={"text": text, "answers": 2, **more}).json()
    for name in ("answer_id", "second_answer_id"):
        client.get(f"/api/answers/{turn[name]}/events")
    return turn


def shown(client: TestClient, turn: dict[str, Any], **query: str) -> list[dict[str, Any]]:
    found = client.get(f"/api/dialogues/{turn['dialogue_id']}", params=query).json()
    messages: list[dict[str, Any]] = found["messages"]
    return messages


def choose(client: TestClient, turn: dict[str, Any], verdict: str) -> None:
    path = f"/api/picks/{turn['answer_id']}/{turn['second_answer_id']}"
    assert client.put(path, json={"verdict": verdict}).status_code == 200


def test_both_are_written_and_the_first_goes_on_before_a_choice(client: TestClient) -> None:
    turn = ask_for_two(client)
    *_, answer = shown(client, turn)
    assert answer["siblings"] == [turn["answer_id"], turn["second_answer_id"]]
    assert (answer["id"], answer["status"]) == (turn["answer_id"], "complete")
    *_, second = shown(client, turn, leaf_id=turn["second_answer_id"])
    assert {answer["content"], second["content"]} == {"The first.", "The second."}


@pytest.mark.parametrize(
    ("verdict", "name"),
    [("first", "answer_id"), ("second", "second_answer_id"), ("tie", "answer_id"), ("both_bad", "answer_id")],
)
def test_the_chosen_one_goes_on(client: TestClient, verdict: str, name: str) -> None:
    turn = ask_for_two(client)
    choose(client, turn, verdict)
    assert shown(client, turn)[-1]["id"] == turn[name]
    following = client.post(f"/api/dialogues/{turn['dialogue_id']}/messages", json={"text": "And then?"})
    client.get(f"/api/answers/{following.json()['answer_id']}/events")
    assert [each["id"] for each in shown(client, turn)[1:2]] == [turn[name]]


def test_a_choice_says_how_the_two_came_to_be(client: TestClient, site: Any) -> None:
    turn = ask_for_two(client)
    choose(client, turn, "second")
    third = client.post(f"/api/messages/{turn['second_answer_id']}/regenerate").json()
    client.get(f"/api/answers/{third['answer_id']}/events")
    choose(client, {**third, "second_answer_id": third["answer_id"], "answer_id": turn["answer_id"]}, "tie")
    with site.store.read() as tx:
        kinds = {row.second_id: row.kind for row in tx.query(Pick)}
    assert kinds == {turn["second_answer_id"]: "side_by_side", third["answer_id"]: "regeneration"}
    assert third["second_answer_id"] is None


def test_a_retry_makes_no_second_pair(client: TestClient, site: Any) -> None:
    turn = ask_for_two(client, idempotency_key="k")
    again = ask_for_two(client, idempotency_key="k")
    names = ("answer_id", "second_answer_id", "user_message_id")
    assert [turn[name] for name in names] == [again[name] for name in names]
    assert len(site.engines["v1"].prompts) == 2


def test_both_count_and_two_are_refused_where_one_is_left(client: TestClient, site: Any) -> None:
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_limit=3))
    assert ask_for_two(client)["remaining"] == 1
    refused = client.post("/api/dialogues", json={"text": "More", "answers": 2})
    assert refused.status_code == 429
    assert "1 answer left" in refused.json()["error"]["message"]
    assert len(client.get("/api/dialogues").json()["dialogues"]) == 1
    assert client.post("/api/dialogues", json={"text": "More"}).json()["remaining"] == 0


def test_two_at_a_time_take_two_places(site: Any) -> None:
    site.delay = 0.05
    site.answers = ("word " * 200,)
    with site.client() as client:
        for _ in range(2):
            assert client.post("/api/dialogues", json={"text": "Hi", "answers": 2}).status_code == 201
        assert client.post("/api/dialogues", json={"text": "Hi"}).status_code == 429
        site.interrupt()


def test_a_blocked_question_has_one_answer(client: TestClient) -> None:
    turn = client.post("/api/dialogues", json={"text": "murder", "answers": 2}).json()
    assert turn["second_answer_id"] is None
    assert [each["status"] for each in shown(client, turn)] == ["blocked", "blocked"]


def test_what_was_blocked_does_not_go_on(site: Any) -> None:
    site.answers = ("A brawl, a murder.", "Peace.")
    with site.client() as client:
        turn = ask_for_two(client)
        assert shown(client, turn)[-1]["content"] == "Peace."


@pytest.mark.parametrize("odd", [0, 3, "2", True, None, 2.0])
def test_other_numbers_are_refused(client: TestClient, odd: Any) -> None:
    assert client.post("/api/dialogues", json={"text": "Hi", "answers": odd}).status_code == 400


def test_while_versions_are_compared_each_gives_one(client: TestClient, site: Any) -> None:
    site.registry.publish(kind="chat", model="tiny")
    with site.store.write() as tx:
        by = accounts.create_guest(tx).id
        running = experiments.start_experiment(tx, control="v1", treatment="v2", share=0.5, by=by)
    turn = ask_for_two(client)
    choose(client, turn, "second")
    client.put(f"/api/messages/{turn['answer_id']}/rating", json={"verdict": "up"})
    with site.store.read() as tx:
        pair = [tx.get_one(Message, turn[name]) for name in ("answer_id", "second_answer_id")]
        assert {row.model_version for row in pair} == {"v1", "v2"}
        [pick] = tx.query(Pick)
        assert pick.kind == "experiment"
        assert len(list(experiments.compared_pairs(tx))) == 1
        assert list(experiments.observations(tx, running)) == []


@pytest.fixture
def compared(site: Any) -> None:
    """Two versions are being compared, and every turn may show both."""
    site.registry.publish(kind="chat", model="tiny")
    with site.store.write() as tx:
        by = accounts.create_guest(tx).id
        experiments.start_experiment(tx, control="v1", treatment="v2", share=0.5, by=by, pairs=1.0)


def ask(client: TestClient, **more: Any) -> dict[str, Any]:
    path = f"/api/dialogues/{more.pop('dialogue')}/messages" if "dialogue" in more else "/api/dialogues"
    turn: dict[str, Any] = client.post(path, json={"text": "Hi", **more}).json()
    for name in filter(None, (turn["answer_id"], turn["second_answer_id"])):
        client.get(f"/api/answers/{name}/events")
    return turn


def test_a_comparison_shows_both_unasked_but_never_twice_in_a_row(
    client: TestClient, site: Any, compared: None
) -> None:
    turn = ask(client)
    with site.store.read() as tx:
        pair = [tx.get_one(Message, turn[name]) for name in ("answer_id", "second_answer_id")]
        assert {row.model_version for row in pair} == {"v1", "v2"}
    choose(client, turn, "first")
    with site.store.read() as tx:
        assert [row.kind for row in tx.query(Pick)] == ["experiment"]
        assert len(list(experiments.compared_pairs(tx))) == 1
    assert ask(client, dialogue=turn["dialogue_id"])["second_answer_id"] is None
    assert ask(client, dialogue=turn["dialogue_id"])["second_answer_id"] is not None
    assert ask(client)["second_answer_id"] is None, "in another chat, too"
    assert ask(client, answers=1)["second_answer_id"] is None
    client.cookies.clear()
    assert ask(client)["second_answer_id"] is not None, "somebody else"


def test_an_answer_that_nobody_asked_for_costs_nothing(client: TestClient, site: Any, compared: None) -> None:
    with site.store.write() as tx:
        change_chat_settings(tx, ChatSettings(guest_limit=1))
    turn = ask(client)
    assert (turn["second_answer_id"] is not None, turn["remaining"]) == (True, 0)


def test_no_temporary_chat_is_made_part_of_a_comparison(client: TestClient, compared: None) -> None:
    turn = ask(client, temporary=True)
    assert turn["second_answer_id"] is None
    assert ask(client, dialogue=turn["dialogue_id"])["second_answer_id"] is None


def test_a_second_answer_never_keeps_anybody_waiting(client: TestClient, site: Any, compared: None) -> None:
    turns = cast(Any, client.app).state.services.turns
    turns.line.places = 1
    turn = ask(client)
    assert turn["second_answer_id"] is None
    turns.line.places = 2
    with site.store.read() as tx:
        reader = tx.get_one(Dialogue, turn["dialogue_id"]).owner_id
    turns._places[reader] = ANSWERS_AT_ONCE - 1
    assert ask(client)["second_answer_id"] is None
    turns._places[reader] = 0
    assert ask(client)["second_answer_id"] is not None


def test_a_version_that_cannot_answer_is_not_shown_beside_itself(
    client: TestClient, site: Any, compared: None
) -> None:
    whole = site.load

    def load(version: Any) -> Any:
        if version.name == "v2":
            raise ModelError("its weights are gone")
        return whole(version)

    site.load = load
    turn = ask(client)
    assert turn["second_answer_id"] is None
    assert shown(client, turn)[-1]["model_version"] == "v1"


def test_how_often_is_an_operators_choice(client: TestClient, site: Any) -> None:
    with site.store.write() as tx:
        site.registry.publish(kind="chat", model="tiny")
        by = accounts.create_guest(tx).id
        assert experiments.pairs_share(tx) == 0.05
        for wrong in (-0.1, 1.1):
            with pytest.raises(InvalidRequest):
                experiments.start_experiment(tx, control="v1", treatment="v2", share=0.5, by=by, pairs=wrong)
        experiments.start_experiment(tx, control="v1", treatment="v2", share=0.5, by=by, pairs=0.0)
    assert [ask(client)["second_answer_id"] for _ in range(3)] == [None] * 3


def test_only_its_reader_may_choose(client: TestClient, site: Any) -> None:
    turn = ask_for_two(client)
    path = f"/api/picks/{turn['answer_id']}/{turn['second_answer_id']}"
    other = {"verdict": "tie"}
    assert client.put(path, json=other, headers=site.session("operator")).status_code == 404
    with site.store.read() as tx:
        assert tx.query(User).count() == 2
        assert picks.picks_for(tx, [turn["second_answer_id"]], "nobody") == {}
