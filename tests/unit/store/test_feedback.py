from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import func, select

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, accounts, dialogues, feedback
from tutelage.store.tables import Message, Rating

Chat = Callable[..., list[Message]]


def test_a_rating_keeps_what_was_judged(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    rows = chat(cast.reader, "q1", "a1", "q2", "a2")
    with store.write() as tx:
        feedback.rate(
            tx,
            message_id=rows[3].id,
            rater_id=cast.reader,
            verdict="down",
            reasons=["untrue", "too_long", "untrue"],
            note="wrong\x00",
            ideal="a3",
        )
    with store.read() as tx:
        rating = feedback.ratings_for(tx, [row.id for row in rows], cast.reader)[rows[3].id]
    assert (rating.verdict, rating.reasons) == ("down", ["untrue", "too_long"])
    assert (rating.note, rating.ideal) == ("wrong", "a3")
    assert [(turn["role"], turn["content"]) for turn in rating.path] == [
        ("user", "q1"),
        ("assistant", "a1"),
        ("user", "q2"),
        ("assistant", "a2"),
    ]
    assert (rating.path[3]["model_version"], rating.path[3]["sampling"]) == ("v1", {"temperature": 1.0})
    assert (rating.model_version, rating.consent) == ("v1", True)


def test_a_second_rating_replaces_the_first_and_can_be_withdrawn(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    message_id = chat(cast.reader, "q", "a")[1].id
    with store.write() as tx:
        first = feedback.rate(tx, message_id=message_id, rater_id=cast.reader, verdict="down", ideal="b")
        before = first.updated
        second = feedback.rate(tx, message_id=message_id, rater_id=cast.reader, verdict="up")
        assert (first.id, second.verdict, second.ideal) == (second.id, "up", "")
        assert second.updated > before
        assert feedback.ratings_for(tx, [message_id], cast.private) == {}
        assert tx.scalar(select(func.count()).select_from(Rating)) == 1
        assert not feedback.withdraw(tx, message_id=message_id, rater_id=cast.private)
        assert feedback.withdraw(tx, message_id=message_id, rater_id=cast.reader)
        assert not feedback.withdraw(tx, message_id=message_id, rater_id=cast.reader)
        assert feedback.ratings_for(tx, [message_id], cast.reader) == {}


@pytest.mark.parametrize("wrong", [{"verdict": "meh"}, {"reasons": ["boring"]}])
def test_unknown_words_are_refused(
    store: Store, cast: SimpleNamespace, chat: Chat, wrong: dict[str, Any]
) -> None:
    message_id = chat(cast.reader, "q", "a")[1].id
    with store.write() as tx, pytest.raises(InvalidRequest):
        feedback.rate(tx, **{"message_id": message_id, "rater_id": cast.reader, "verdict": "up"} | wrong)


def test_only_finished_answers_in_ones_own_dialogues_are_rated(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    question, answer, last = chat(cast.reader, "q", "a", "q")
    with store.write() as tx:
        with pytest.raises(NotFound):
            feedback.rate(tx, message_id=answer.id, rater_id=cast.private, verdict="up")
        with pytest.raises(InvalidRequest):
            feedback.rate(tx, message_id=question.id, rater_id=cast.reader, verdict="up")
        written = dialogues.add_message(
            tx,
            last.dialogue_id,
            parent_id=last.id,
            role="assistant",
            content="by a person",
            author_kind="human",
        )
        with pytest.raises(InvalidRequest, match="Only a model's answers"):
            feedback.rate(tx, message_id=written.id, rater_id=cast.reader, verdict="up")
        running = dialogues.start_answer(
            tx, last.dialogue_id, parent_id=last.id, model_version="v1", sampling={}
        )
        with pytest.raises(Conflict):
            feedback.rate(tx, message_id=running.id, rater_id=cast.reader, verdict="up")


def test_consent_follows_the_rater_even_afterwards(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    message_id = chat(cast.private, "q", "a")[1].id
    hidden_id = chat(cast.reader, "q", "a", temporary=True)[1].id
    with store.write() as tx:
        rating = feedback.rate(tx, message_id=message_id, rater_id=cast.private, verdict="up")
        assert not rating.consent
        assert not feedback.rate(tx, message_id=hidden_id, rater_id=cast.reader, verdict="up").consent
        accounts.set_consent(tx, cast.private, True)
    with store.read() as tx:
        assert tx.get_one(Rating, rating.id).consent
