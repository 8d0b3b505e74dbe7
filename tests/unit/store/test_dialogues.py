from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from itertools import pairwise
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, inspect, select, text
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, accounts, dialogues, feedback, reports
from tutelage.store.tables import Message, Rating, Report

Chat = Callable[..., list[Message]]


def ask(
    tx: Session, dialogue_id: str, parent_id: str | None = None, content: str = "q", **rest: Any
) -> Message:
    return dialogues.add_message(
        tx, dialogue_id, parent_id=parent_id, role="user", content=content, author_kind="human", **rest
    )


def answer(tx: Session, dialogue_id: str, parent_id: str) -> Message:
    return dialogues.start_answer(tx, dialogue_id, parent_id=parent_id, model_version="v1", sampling={})


def finish(tx: Session, message: Message, content: str = "a", **rest: Any) -> Message:
    rest = {"status": "complete", "finish_reason": "stop"} | rest
    return dialogues.finish_answer(tx, message.id, content=content, **rest)


def grow(tx: Session, dialogue_id: str, choices: list[int]) -> list[Message]:
    """A tree: each choice picks the parent among the messages so far and the root."""
    rows: list[Message] = []
    for choice in choices:
        parent = [None, *rows][choice % (len(rows) + 1)]
        if parent is not None and parent.role == "user":
            row = finish(tx, answer(tx, dialogue_id, parent.id))
        else:
            row = ask(tx, dialogue_id, parent.id if parent else None)
        rows.append(row)
    return rows


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(choices=st.lists(st.integers(0, 1000), min_size=1, max_size=25), pick=st.integers(0, 1000))
def test_threads_and_paths_of_any_tree(
    make_store: Callable[[], Store], choices: list[int], pick: int
) -> None:
    store = make_store()
    with store.write() as tx:
        dialogue_id = dialogues.create_dialogue(tx, accounts.create_guest(tx).id).id
        rows = grow(tx, dialogue_id, choices)
    chosen = rows[pick % len(rows)]
    with store.read() as tx:
        newest = dialogues.thread(tx, dialogue_id)
        branch = dialogues.thread(tx, dialogue_id, leaf_id=chosen.id)
        up = dialogues.path(tx, chosen.id)
    assert newest[-1][0].id == rows[-1].id
    assert [row.id for row, _ in branch][: len(up)] == [row.id for row in up]
    assert up[0].parent_id is None
    assert all(low.parent_id == high.id for high, low in pairwise(up))
    for row, siblings in branch:
        assert siblings == [other.id for other in rows if other.parent_id == row.parent_id]
    below = {chosen.id}
    for row in rows:
        below |= {row.id} if row.parent_id in below else set()
    assert branch[-1][0].id == max(below)


def test_an_empty_dialogue_has_an_empty_thread(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        assert dialogues.thread(tx, dialogues.create_dialogue(tx, cast.reader).id) == []


def test_a_thread_knows_only_its_own_messages(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    mine, other = chat(cast.reader, "q", "a"), chat(cast.reader, "q")
    with store.read() as tx, pytest.raises(NotFound):
        dialogues.thread(tx, mine[0].dialogue_id, leaf_id=other[0].id)
    with store.read() as tx, pytest.raises(NotFound):
        dialogues.path(tx, "no such message")


def test_sending_twice_with_one_key_writes_once(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        dialogue_id = dialogues.create_dialogue(tx, cast.reader).id

    def send(_: int) -> str:
        with store.write() as tx:
            return ask(tx, dialogue_id, idempotency_key="key").id

    with ThreadPoolExecutor(8) as pool:
        ids = set(pool.map(send, range(24)))
    assert len(ids) == 1
    with store.write() as tx:
        assert ask(tx, dialogue_id).id not in ids
        assert ask(tx, dialogues.create_dialogue(tx, cast.reader).id, idempotency_key="key").id not in ids


def test_what_was_sent_is_found_by_key_and_sender(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        sent = ask(tx, dialogues.create_dialogue(tx, cast.reader).id, idempotency_key="key")
        found = dialogues.sent_message(tx, cast.reader, "key")
        assert found is not None
        assert found.id == sent.id
        assert dialogues.sent_message(tx, cast.private, "key") is None


def test_an_answer_says_which_version_spoke_and_how(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    verdict = {"state": "warned", "policy_version": "p7"}
    [question] = chat(cast.reader, "q")
    with store.write() as tx:
        sampling = {"temperature": 0.7, "seed": 3}
        row = dialogues.start_answer(
            tx, question.dialogue_id, parent_id=question.id, model_version="v3", sampling=sampling
        )
        assert (row.status, row.author_kind) == ("running", "model")
        assert dialogues.flush_answer(tx, row.id, content="half").content == "half"
        finish(tx, row, "whole", prompt_tokens=5, completion_tokens=2, filter_verdict=verdict)
    with store.read() as tx:
        [_, (stored, _)] = dialogues.thread(tx, question.dialogue_id)
    assert (stored.model_version, stored.sampling) == ("v3", sampling)
    assert (stored.content, stored.status, stored.finish_reason) == ("whole", "complete", "stop")
    assert (stored.prompt_tokens, stored.completion_tokens) == (5, 2)
    assert (stored.filter_verdict, stored.policy_version) == (verdict, "p7")


def test_an_answer_ends_once(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    message = chat(cast.reader, "q", "a")[1]
    with store.write() as tx, pytest.raises(Conflict):
        finish(tx, message)
    with store.write() as tx, pytest.raises(Conflict):
        dialogues.flush_answer(tx, message.id, content="late")
    with store.write() as tx, pytest.raises(NotFound):
        dialogues.flush_answer(tx, "none", content="late")


def test_only_answers_whose_beats_stopped_are_reaped(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    [old], [new] = chat(cast.reader, "q"), chat(cast.reader, "q")
    with store.write() as tx:
        late = answer(tx, old.dialogue_id, old.id)
        late.beat_at -= timedelta(minutes=5)
        alive = answer(tx, new.dialogue_id, new.id)
        assert dialogues.reap_answers(tx, older_than=timedelta(minutes=1)) == 1
        assert dialogues.reap_answers(tx, older_than=timedelta(minutes=1)) == 0
        assert (late.status, alive.status) == ("interrupted", "running")
        assert dialogues.reap_answers(tx, older_than=timedelta(0)) == 1


def test_nobody_writes_below_an_answer_under_way(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    [question] = chat(cast.reader, "q")
    with store.write() as tx:
        running = answer(tx, question.dialogue_id, question.id)
        with pytest.raises(Conflict):
            ask(tx, question.dialogue_id, running.id)


@pytest.mark.parametrize(
    ("below", "role"), [(None, "assistant"), ("user", "user"), ("assistant", "assistant"), ("user", "system")]
)
def test_turns_alternate(
    store: Store, cast: SimpleNamespace, chat: Chat, below: str | None, role: Any
) -> None:
    rows = {row.role: row for row in chat(cast.reader, "q", "a")}
    parent = None if below is None else rows[below].id
    dialogue_id = rows["user"].dialogue_id
    with store.write() as tx, pytest.raises(InvalidRequest):
        dialogues.add_message(tx, dialogue_id, parent_id=parent, role=role, content="x", author_kind="human")


def test_a_parent_is_in_the_same_dialogue(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    mine, other = chat(cast.reader, "q", "a"), chat(cast.reader, "q", "a")
    for dialogue_id, parent_id in ((mine[0].dialogue_id, other[1].id), ("none", mine[1].id)):
        with store.write() as tx, pytest.raises(NotFound):
            ask(tx, dialogue_id, parent_id)


def test_a_dialogue_exists_for_its_owner_only(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    [question] = chat(cast.reader, "q")
    mine = question.dialogue_id
    with store.write() as tx:
        for stranger in (cast.private, cast.operator):
            for attempt in (
                lambda who: dialogues.get_dialogue(tx, mine, owner_id=who),
                lambda who: dialogues.get_message(tx, question.id, owner_id=who),
                lambda who: dialogues.rename_dialogue(tx, mine, owner_id=who, title="x"),
                lambda who: dialogues.delete_dialogue(tx, mine, owner_id=who),
                lambda who: dialogues.list_dialogues(tx, who, limit=5, before=mine),
            ):
                with pytest.raises(NotFound):
                    attempt(stranger)
            assert dialogues.list_dialogues(tx, stranger, limit=5) == []
        assert dialogues.get_message(tx, question.id, owner_id=cast.reader).content == "q"


def test_lists_go_from_the_last_changed_back_page_by_page(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    made = [chat(cast.reader, f"q{number}", "a") for number in range(7)]
    chat(cast.reader, "secret", temporary=True)
    with store.write() as tx:
        ask(tx, made[2][0].dialogue_id, made[2][1].id)
    expected = [made[index][0].dialogue_id for index in (2, 6, 5, 4, 3, 1, 0)]
    listed: list[str] = []
    with store.read() as tx:
        while page := dialogues.list_dialogues(
            tx, cast.reader, limit=3, before=listed[-1] if listed else None
        ):
            listed += [dialogue.id for dialogue in page]
    assert listed == expected


def test_titles(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    dialogue_id = chat(cast.reader, "q")[0].dialogue_id
    with store.write() as tx:
        assert dialogues.rename_dialogue(tx, dialogue_id, owner_id=cast.reader, title=" new ").title == "new"
        for title in ("", "  ", "x" * 201):
            with pytest.raises(InvalidRequest):
                dialogues.rename_dialogue(tx, dialogue_id, owner_id=cast.reader, title=title)


def test_deleting_a_dialogue_leaves_nothing_of_it(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    rows, kept = chat(cast.reader, "q", "a", "q", "a"), chat(cast.reader, "q", "a")
    with store.write() as tx:
        feedback.rate(tx, message_id=rows[1].id, rater_id=cast.reader, verdict="up")
        reports.report(tx, message_id=rows[1].id, reporter_id=cast.reader, kind="missed")
        dialogues.delete_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
    with store.write() as tx:
        for table in (Rating, Report):
            assert tx.scalar(select(func.count()).select_from(table)) == 0
        assert {row.id for row in tx.scalars(select(Message))} == {row.id for row in kept}
        assert dialogues.delete_dialogues(tx, cast.reader) == 1
        assert tx.scalar(select(func.count()).select_from(Message)) == 0


@pytest.mark.parametrize("way", ["dialogue", "dialogues", "account"])
def test_a_chat_of_any_length_can_be_deleted(
    store: Store, cast: SimpleNamespace, chat: Chat, way: str
) -> None:
    """SQLite follows a chain of deletions a thousand rows deep, and no further."""
    (first, *_) = chat(cast.reader, *["again"] * 1200)
    with store.write() as tx:
        if way == "dialogue":
            dialogues.delete_dialogue(tx, first.dialogue_id, owner_id=cast.reader)
        elif way == "dialogues":
            dialogues.delete_dialogues(tx, cast.reader)
        else:
            accounts.delete_user(tx, cast.reader)
    with store.read() as tx:
        assert tx.scalar(select(func.count()).select_from(Message)) == 0
        for table in {"search_rows", "search_texts"} & {*inspect(tx.get_bind()).get_table_names()}:
            assert tx.scalar(text(f"SELECT count(*) FROM {table}")) == 0


def test_consent_is_the_owners_and_never_of_a_temporary_dialogue(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        assert dialogues.create_dialogue(tx, cast.reader).consent
        assert not dialogues.create_dialogue(tx, cast.reader, temporary=True).consent
        assert not dialogues.create_dialogue(tx, cast.private).consent
        with pytest.raises(NotFound):
            dialogues.create_dialogue(tx, "nobody")


def test_text_is_cleaned_in_the_row_that_comes_back(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        row = ask(tx, dialogues.create_dialogue(tx, cast.reader).id, content="a\x00b\ud83d")
    assert row.content == "ab\ufffd"


def test_a_long_chat_is_read_quickly(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    texts = [str(random.random()) for _ in range(1000)]
    rows = chat(cast.reader, *texts)
    with store.read() as tx:
        assert [row.content for row, _ in dialogues.thread(tx, rows[0].dialogue_id)] == texts
        assert [row.content for row in dialogues.path(tx, rows[-1].id)] == texts
