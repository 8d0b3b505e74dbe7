"""What is ranked, and what becomes of the orders that are handed in."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, accounts, export, labelling
from tutelage.store.ids import now
from tutelage.store.labelling import LabellingSettings
from tutelage.store.tables import Message, Ranking

Chat = Callable[..., list[Message]]


def test_a_task_is_an_answer_with_the_conversation_before_it(
    desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q1", "a1", "q2", "a2")
    task = desk.must_take(cast.trainer)
    position = [row.id for row in rows].index(task.message.id)
    assert task.message.role == "assistant"
    assert [row.id for row in task.prompt] == [row.id for row in rows[:position]]
    assert (task.candidates, task.k) == ((), 3)
    assert timedelta(minutes=14) < task.expires - now() <= timedelta(minutes=15)


def test_candidates_are_the_samples_and_the_answer_in_an_order_that_stays(
    desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    assert sorted(candidate.content for candidate in task.candidates) == ["a", "b", "c"]
    by_content = {candidate.content: candidate for candidate in task.candidates}
    assert [by_content[text].original for text in "abc"] == [True, False, False]
    assert (by_content["a"].model_version, by_content["a"].sampling) == ("v1", {"temperature": 1.0})
    assert (by_content["b"].model_version, by_content["b"].sampling) == ("v2", {"seed": 1})
    again = desk.fill(task, cast.trainer)
    assert [row.id for row in again.candidates] == [row.id for row in task.candidates]


def test_the_order_is_shuffled(store: Store, desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    positions = set()
    for seed in range(12):
        chat(cast.reader, "q", "a")
        filled = desk.fill(desk.must_take(cast.trainer, seed=seed), cast.trainer, seed=seed)
        positions.add([candidate.original for candidate in filled.candidates].index(True))
        desk.submit(filled, cast.trainer)
    assert positions == {0, 1, 2}


def test_a_ranking_keeps_ties_and_what_could_not_be_ranked(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    one, two, three = (candidate.id for candidate in task.candidates)
    row = desk.submit(task, cast.trainer, groups=[[], [two, one]], unrankable=[three], note="close")
    with store.read() as tx:
        stored = tx.get_one(Ranking, row.id)
        assert (stored.groups, stored.unrankable) == ([[two, one]], [three])
        assert (stored.all_bad, stored.note, stored.annotator_id) == (False, "close", cast.trainer)
    with pytest.raises(Conflict):
        desk.submit(task, cast.trainer)


def test_all_bad_needs_no_order(desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    row = desk.submit(task, cast.trainer, groups=[], all_bad=True)
    assert sorted(row.unrankable) == sorted(candidate.id for candidate in task.candidates)


@pytest.mark.parametrize("wrong", ["unknown", "twice", "missing", "both", "none"])
def test_orders_that_are_not_orders(desk: Any, cast: SimpleNamespace, chat: Chat, wrong: str) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    ids = [candidate.id for candidate in task.candidates]
    groups, unrankable = {
        "unknown": ([ids, ["x"]], []),
        "twice": ([ids, ids[:1]], []),
        "missing": ([ids[1:]], []),
        "both": ([ids], ids[:1]),
        "none": ([], ids),
    }[wrong]
    with pytest.raises(InvalidRequest):
        desk.submit(task, cast.trainer, groups=groups, unrankable=unrankable)
    desk.submit(task, cast.trainer)


def test_a_task_without_candidates_cannot_be_ranked(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.must_take(cast.trainer)
    with pytest.raises(InvalidRequest):
        desk.submit(task, cast.trainer, groups=[["x"]])
    with store.write() as tx, pytest.raises(InvalidRequest):
        labelling.set_candidates(tx, task.id, cast.trainer, [])
    with pytest.raises(InvalidRequest):
        desk.take(cast.trainer, k=1)


def test_the_order_as_it_came_is_noted(desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    for moved in (False, True):
        chat(cast.reader, "q", "a")
        task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
        ids = [candidate.id for candidate in task.candidates]
        row = desk.submit(task, cast.trainer, groups=[[each] for each in (ids[::-1] if moved else ids)])
        assert row.as_it_came is not moved


def test_a_fixed_candidate_becomes_a_demonstration_of_that_conversation(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    worst = next(each for each in task.candidates if each.content == "b")
    with store.write() as tx:
        row = labelling.fix_candidate(
            tx, task_id=task.id, annotator_id=cast.trainer, candidate_id=worst.id, content="a better b "
        )
    assert [message["content"] for message in row.messages] == ["q", "a better b"]
    kept = row.messages[-1]["provenance"]
    assert (kept["kind"], kept["taken"], kept["model_version"]) == ("edited", "b", "v2")
    assert (row.status, row.message_id) == ("submitted", rows[1].id)
    chat(cast.reader, "q", "a")
    desk.skip(task, cast.trainer)
    other = desk.fill(desk.must_take(cast.trainer), cast.trainer)
    wrongs = ({"candidate_id": "x", "content": "y"}, {"candidate_id": worst.id, "content": "y"})
    with store.write() as tx:
        for wrong in (
            *wrongs,
            {"candidate_id": other.candidates[0].id, "content": other.candidates[0].content},
        ):
            with pytest.raises(InvalidRequest):
                labelling.fix_candidate(tx, task_id=other.id, annotator_id=cast.trainer, **wrong)
        with pytest.raises(NotFound):
            labelling.fix_candidate(
                tx, task_id=task.id, annotator_id=cast.second, candidate_id=worst.id, content="y"
            )


def test_an_adjudication_is_the_only_ranking_of_its_task_that_is_learnt_from(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.fill(desk.must_take(cast.trainer, overlap=2), cast.trainer)
    desk.submit(task, cast.trainer)
    order = [[candidate.id] for candidate in task.candidates][::-1]
    with store.write() as tx:
        labelling.adjudicate(
            tx, task.id, by=cast.operator, groups=order[:1], unrankable=[name for [name] in order[1:]]
        )
        settled = labelling.adjudicate(tx, task.id, by=cast.operator, groups=order)
        with pytest.raises(NotFound):
            labelling.adjudicate(tx, "x", by=cast.operator, groups=order)
        with pytest.raises(InvalidRequest):
            labelling.adjudicate(tx, task.id, by=cast.operator, groups=order[1:])
    assert desk.take(cast.second) is None
    with store.read() as tx:
        assert [len(labelling.rankings_by(tx, name)) for name in (cast.trainer, cast.operator)] == [1, 1]
        shown = labelling.labelled_task(tx, task.id)
        assert [(row.adjudication, shown.ranks(row)) for row in shown.rankings] == [
            (False, [1, 2, 3]),
            (True, [3, 2, 1]),
        ]
        [learnt] = export.comparisons(tx)
    assert learnt.id == settled.id
    assert learnt.preferences[0].better == len(order) - 1
    with store.write() as tx:
        accounts.set_consent(tx, cast.reader, False)
        for name in (task.id, "x"):
            with pytest.raises(NotFound):
                labelling.labelled_task(tx, name)


def test_settings_are_kept_and_checked(store: Store) -> None:
    with store.write() as tx:
        assert labelling.labelling_settings(tx) == LabellingSettings()
        wanted = LabellingSettings(candidates=6, overlap=3, gold_share=0.1, versions=("stable", "v2"))
        labelling.change_labelling_settings(tx, wanted)
        assert labelling.labelling_settings(tx) == wanted
        wrong: list[dict[str, Any]] = [
            {"candidates": 1},
            {"candidates": 10},
            {"overlap": 0},
            {"overlap": 21},
            {"gold_share": 0.9},
            {"gold_share": -0.1},
            {"versions": ()},
            {"topics": {"free": 0.0}},
            {"topics": {"free": 2.0, "refuse": -1.0}},
            {"topics": {"free": 1.0, "unknown": 1.0}},
        ]
        for fields in wrong:
            with pytest.raises(InvalidRequest):
                labelling.change_labelling_settings(tx, LabellingSettings(**fields))
