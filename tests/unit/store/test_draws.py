"""Which answers are given to whom to rank."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import text

from tutelage.errors import NotFound
from tutelage.store import Store, accounts, dialogues, labelling
from tutelage.store.labelling.draws import dialogues_from
from tutelage.store.tables import Dialogue, Message

Chat = Callable[..., list[Message]]


def test_dialogues_are_drawn_before_messages(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    long = chat(cast.reader, *(["q", "a"] * 30))
    for _ in range(9):
        chat(cast.reader, "q", "a")
    drawn = Counter()
    for seed in range(20):
        with store.read() as tx:  # so that nothing of it stays
            task = labelling.next_ranking_task(tx, annotator_id=cast.trainer, k=3, rng=random.Random(seed))
            drawn[task is not None and task.dialogue_id == long[0].dialogue_id] += 1
    assert drawn[True] < 10


@pytest.mark.parametrize("status", ["interrupted", "blocked"])
def test_only_whole_answers_after_whole_conversations(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat, status: str
) -> None:
    chat(cast.reader, "q", "a", "q", "a", status=status)
    rows = chat(cast.reader, "q")
    with store.write() as tx:
        dialogues.start_answer(tx, rows[0].dialogue_id, parent_id=rows[0].id, model_version="v1", sampling={})
        blocked = dialogues.create_dialogue(tx, cast.reader).id
        question = dialogues.add_message(
            tx,
            blocked,
            parent_id=None,
            role="user",
            content="q",
            author_kind="human",
            status="blocked",
        )
        row = dialogues.start_answer(tx, blocked, parent_id=question.id, model_version="v1", sampling={})
        dialogues.finish_answer(tx, row.id, content="a", status="complete", finish_reason="stop")
    assert desk.take(cast.trainer) is None


def test_only_what_may_be_used(store: Store, desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    chat(cast.private, "q", "a")
    chat(cast.reader, "q", "a", temporary=True)
    assert desk.take(cast.trainer) is None
    with store.write() as tx:
        accounts.set_consent(tx, cast.private, True)
    task = desk.must_take(cast.trainer)
    with store.write() as tx:
        accounts.set_consent(tx, cast.private, False)
    assert desk.take(cast.trainer) is None
    with store.write() as tx:
        dialogues.delete_dialogue(tx, task.dialogue_id, owner_id=cast.private)
    with store.write() as tx, pytest.raises(NotFound):
        labelling.renew_lease(tx, task.id, cast.trainer)


def test_nobody_ranks_answers_to_their_own_words_unless_alone(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    with store.write() as tx:
        accounts.set_consent(tx, cast.trainer, True)
    chat(cast.trainer, "q", "a")
    assert desk.take(cast.trainer) is None
    assert desk.take(cast.trainer, own_writing=True) is not None
    desk.skip(desk.must_take(cast.trainer), cast.trainer)
    assert desk.take(cast.trainer, own_writing=True) is None
    assert desk.take(cast.second) is not None


def test_nobody_ranks_answers_to_what_they_wrote_in_anothers_dialogue(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    with store.write() as tx:
        tx.get_one(Message, rows[0].id).author_id = cast.trainer
    assert desk.take(cast.trainer) is None


def test_whose_dialogue_it_is_counts_too(store: Store, desk: Any, cast: SimpleNamespace, chat: Chat) -> None:
    with store.write() as tx:
        accounts.set_consent(tx, cast.trainer, True)
    rows = chat(cast.trainer, "q", "a")
    with store.write() as tx:
        tx.get_one(Message, rows[0].id).author_id = None
    assert desk.take(cast.trainer) is None
    with store.write() as tx:
        tx.get_one(Dialogue, rows[0].dialogue_id).owner_id = None
    assert desk.take(cast.trainer) is not None


def test_only_what_a_model_wrote_is_ranked(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    [asked] = chat(cast.reader, "q")
    with store.write() as tx:
        dialogues.add_message(
            tx,
            asked.dialogue_id,
            parent_id=asked.id,
            role="assistant",
            content="a",
            author_kind="human",
        )
    assert desk.take(cast.trainer) is None


def test_a_task_that_somebody_left_needs_consent_too(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    task = desk.must_take(cast.trainer)
    desk.skip(task, cast.trainer)
    for consent in (False, True):
        with store.write() as tx:
            accounts.set_consent(tx, cast.reader, consent)
        assert (desk.take(cast.second) is not None) == consent


def test_a_dialogue_that_was_drawn_gets_a_new_lot(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    [asked, _] = chat(cast.reader, "q", "a")
    lots = []
    for _ in range(2):
        with store.read() as tx:
            lots.append(tx.get_one(Dialogue, asked.dialogue_id).lot)
        desk.take(cast.trainer)
    assert lots[0] != lots[1]


@pytest.mark.sqlite
def test_a_task_is_found_along_an_index_whatever_there_is_beside_it(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    query = dialogues_from(cast.trainer, Dialogue.lot >= 5, own_writing=False)
    with store.read() as tx:
        sql = str(query.compile(tx.get_bind(), compile_kwargs={"literal_binds": True}))
        plan = [row[3] for row in tx.execute(text(f"EXPLAIN QUERY PLAN {sql}"))]
    assert "ix_dialogues_origin_consent_temporary_lot" in plan[0]
    assert any("ix_messages_dialogue_id_id" in step for step in plan)
    assert not any("SCAN" in step or "B-TREE" in step for step in plan)
