"""Answers that go on: which may, what their row remembers, and what was judged before."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace
from typing import Any, Literal

import pytest

from tutelage.errors import Conflict, NotFound
from tutelage.store import Store, continuing, dialogues, export, feedback, picks, search
from tutelage.store.ids import now

Status = Literal["complete", "interrupted", "blocked"]


def answered(
    tx: Any, owner: str, text: str, *, status: Status = "complete", reason: str | None = "length"
) -> tuple[str, str]:
    """A dialogue of one turn, and its answer."""
    row = dialogues.create_dialogue(tx, owner)
    asked = dialogues.add_message(
        tx, row.id, parent_id=None, role="user", content="Why?", author_kind="human"
    )
    return row.id, another(tx, row.id, asked.id, text, status=status, reason=reason)


def another(
    tx: Any,
    dialogue: str,
    question: str,
    text: str,
    *,
    status: Status = "complete",
    reason: str | None = "length",
) -> str:
    answer = dialogues.start_answer(tx, dialogue, parent_id=question, model_version="v1", sampling={})
    dialogues.finish_answer(tx, answer.id, content=text, status=status, finish_reason=reason)
    return answer.id


def finish(tx: Any, answer: str, text: str) -> None:
    dialogues.finish_answer(tx, answer, content=text, status="complete", finish_reason="stop")


def test_what_was_cut_off_may_go_on_without_the_character_it_was_cut_in(
    store: Store, cast: SimpleNamespace
) -> None:
    with store.write() as tx:
        for status, reason in (("complete", "length"), ("interrupted", None)):
            _, answer = answered(tx, cast.reader, "Because \ufffd", status=status, reason=reason)  # type: ignore[arg-type]
            row = continuing.reopen_answer(tx, answer, owner_id=cast.reader, dropped=2)
            assert (row.status, row.content, row.finish_reason) == ("running", "Because ", None)
            assert row.provenance is not None
            assert row.provenance["dropped_messages"] == 2
            [stood] = row.provenance["continued"]
            assert (stood["length"], stood["status"]) == (8, status)


def test_what_has_its_end_does_not_go_on(store: Store, cast: SimpleNamespace) -> None:
    ends: list[tuple[str, Status, str | None]] = [
        ("So.", "complete", "stop"),
        ("So.", "blocked", "content_filter"),
        ("", "interrupted", None),
        ("\ufffd", "complete", "length"),
    ]
    with store.write() as tx:
        for text, status, reason in ends:
            _, answer = answered(tx, cast.reader, text, status=status, reason=reason)
            with pytest.raises(Conflict, match="not cut off"):
                continuing.reopen_answer(tx, answer, owner_id=cast.reader)
        dialogue, answer = answered(tx, cast.reader, "So")
        with pytest.raises(NotFound):
            continuing.reopen_answer(tx, answer, owner_id=cast.private)
        dialogues.add_message(
            tx, dialogue, parent_id=answer, role="user", content="And?", author_kind="human"
        )
        with pytest.raises(Conflict, match="after this answer"):
            continuing.reopen_answer(tx, answer, owner_id=cast.reader)


def test_the_whole_of_what_went_on_is_found_once(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        _, answer = answered(tx, cast.reader, "The giraffe is")
        continuing.reopen_answer(tx, answer, owner_id=cast.reader)
        assert search.search(tx, cast.reader, "giraffe") == []
        finish(tx, answer, "The giraffe is a mammal.")
        for words in ("giraffe", "mammal"):
            assert [hit.message_id for hit in search.search(tx, cast.reader, words)] == [answer]


def test_what_was_judged_is_what_its_reader_had_seen(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        dialogue, first = answered(tx, cast.reader, "Be")
        question = dialogues.get_message(tx, first, owner_id=cast.reader).parent_id or ""
        second = another(tx, dialogue, question, "Worse.", reason="stop")
        feedback.rate(tx, message_id=first, rater_id=cast.reader, verdict="up")
        feedback.rate(tx, message_id=second, rater_id=cast.reader, verdict="down", ideal="Best.")
        picks.pick(tx, first_id=first, second_id=second, rater_id=cast.reader, verdict="first")
        continuing.reopen_answer(tx, first, owner_id=cast.reader)
        finish(tx, first, "Because.")
    with store.read() as tx:
        found = {row.source: row.candidates for row in export.comparisons(tx)}
        row = dialogues.get_message(tx, first, owner_id=cast.reader)
        assert continuing.text_at(row, now() - timedelta(minutes=1)) == "Be"
        assert continuing.text_at(row, now()) == "Because."
    assert set(found["thumbs"]) == {"Be", "Worse."}
    assert found["pick"] == ("Be", "Worse.")


def test_a_choice_made_before_an_answer_was_complete_teaches_nothing(
    store: Store, cast: SimpleNamespace
) -> None:
    with store.write() as tx:
        dialogue, first = answered(tx, cast.reader, "Be", status="interrupted", reason=None)
        question = dialogues.get_message(tx, first, owner_id=cast.reader).parent_id or ""
        second = another(tx, dialogue, question, "Worse.", reason="stop")
        picks.pick(tx, first_id=first, second_id=second, rater_id=cast.reader, verdict="first")
        continuing.reopen_answer(tx, first, owner_id=cast.reader)
        finish(tx, first, "Because.")
        assert [row for row in export.comparisons(tx) if row.source == "pick"] == []
        picks.pick(tx, first_id=first, second_id=second, rater_id=cast.reader, verdict="first")
        assert [row.candidates for row in export.comparisons(tx) if row.source == "pick"] == [
            ("Because.", "Worse.")
        ]
