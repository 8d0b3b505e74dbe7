from __future__ import annotations

import time

import pytest
from sqlalchemy import func, select

from tutelage.dialogue import Comparison, Dialogue, Message, Role
from tutelage.errors import InvalidRequest
from tutelage.store import Store, dialogues, imports, tables


def said(*texts: str) -> tuple[Message, ...]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))


def test_a_dialogue_is_stored_once_a_source(store: Store) -> None:
    first = Dialogue((Message("system", "s"), *said("q", "a", "q2", "a2")), source="dolly", author="7")
    with store.write() as tx:
        assert imports.import_dialogue(tx, first)
        assert not imports.import_dialogue(tx, Dialogue(first.messages, source="dolly", author="8"))
        assert imports.import_dialogue(tx, Dialogue(first.messages, source="alpaca"))
        assert imports.import_dialogue(tx, Dialogue(said("q", "a"), source="dolly"), demonstration=False)
    with store.write() as tx:
        assert not imports.import_dialogue(tx, first)
        rows = tx.scalars(select(tables.Dialogue).order_by(tables.Dialogue.id)).all()
        assert [(row.source, row.author, row.demonstration) for row in rows] == [
            ("dolly", "7", True),
            ("alpaca", None, True),
            ("dolly", None, False),
        ]
        assert all(row.consent and row.owner_id is None and row.origin == "imported" for row in rows)
        thread = dialogues.thread(tx, rows[0].id)
    assert [(row.role, row.content) for row, _ in thread] == [
        (message.role, message.content) for message in first.messages
    ]
    assert {(row.author_kind, row.status) for row, _ in thread} == {("imported", "complete")}


def test_a_comparison_is_stored_once_a_source(store: Store) -> None:
    judged = Comparison.from_ranking(said("q"), ["a", "b", "c"], [[2], [0, 1]], source="hh", author="x")
    other = Comparison.from_ranking(said("q"), ["a", "b", "c"], [[0], [1], [2]], source="hh")
    with store.write() as tx:
        assert imports.import_comparison(tx, judged)
        assert not imports.import_comparison(tx, judged)
        assert imports.import_comparison(tx, other, kind="side_by_side")
        assert [row.kind for row in tx.scalars(select(tables.ComparisonRow))] == ["imported", "side_by_side"]


@pytest.mark.parametrize("messages", [(), said(), said("", "a"), said("q", "\x00"), said("q")[:0]])
def test_what_is_no_dialogue_is_refused(store: Store, messages: tuple[Message, ...]) -> None:
    with store.write() as tx:
        with pytest.raises(InvalidRequest):
            imports.import_dialogue(tx, Dialogue(messages))
        with pytest.raises(InvalidRequest):
            imports.import_comparison(tx, Comparison(messages, ("a", "b"), ()))


def test_a_comparison_is_of_answers_to_a_question(store: Store) -> None:
    with store.write() as tx:
        for wrong in (Comparison(said("q", "a"), ("a", "b"), ()), Comparison(said("q"), ("a",), ())):
            with pytest.raises(InvalidRequest):
                imports.import_comparison(tx, wrong)


def test_text_is_cleaned(store: Store) -> None:
    with store.write() as tx:
        imports.import_dialogue(tx, Dialogue(said("q\x00", "a\ud800"), source="s\x00"))
        assert [*tx.scalars(select(tables.Message.content))] == ["q", "a\ufffd"]
        assert not imports.import_dialogue(tx, Dialogue(said("q", "a\udfff"), source="s"))
        imports.import_comparison(tx, Comparison(said("q\x00"), ("a\ud800", "b"), (), source="s"))
        assert [*tx.scalars(select(tables.ComparisonRow.candidates))] == [["a\ufffd", "b"]]


def test_thousands_of_rows_take_seconds(store: Store, kind: str) -> None:
    begun = time.monotonic()
    with store.write() as tx:
        for number in range(2000):
            imports.import_dialogue(tx, Dialogue(said(f"q{number}", "a" * 500), source="s"))
            imports.import_comparison(tx, Comparison(said(f"q{number}"), ("a", "b"), (), source="s"))
        assert tx.scalar(select(func.count()).select_from(tables.Message)) == 4000
    assert time.monotonic() - begun < {"sqlite": 10, "postgres": 30}[kind]
