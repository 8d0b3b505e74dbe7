"""Which of two answers to one question a reader prefers: after a regeneration, or side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, Sentence
from tutelage.store import pairs, privacy
from tutelage.store.dialogues import get_dialogue, get_message
from tutelage.store.ids import now
from tutelage.store.tables import Message, Pick, PickKind, PickVerdict, User


def pick(tx: Session, *, first_id: str, second_id: str, rater_id: str, verdict: PickVerdict) -> Pick:
    """A reader's choice between two answers in one of their dialogues; sent again, it replaces the first.

    `first_id` and `second_id` are in the order in which they were shown. Raises NotFound for messages that are not
    in the rater's dialogues, InvalidRequest for two that do not answer the same question.
    """
    if verdict not in get_args(PickVerdict):
        raise InvalidRequest(
            Sentence("A verdict is one of {verdicts}.", verdicts=", ".join(get_args(PickVerdict))),
            param="verdict",
        )
    first, second = own_answers(tx, first_id, second_id, rater_id)
    if not comparable(first, second):
        raise InvalidRequest("Two finished answers to one question can be compared.", param="other_id")
    dialogue = get_dialogue(tx, first.dialogue_id, owner_id=rater_id)
    rater = tx.get_one(User, rater_id)
    row = _pick(tx, first_id, second_id, rater_id) or Pick(
        first_id=first_id, second_id=second_id, rater_id=rater_id
    )
    row.kind, row.verdict, row.updated = _kind(first, second), verdict, now()
    row.consent = rater.consent and not dialogue.temporary
    tx.add(row)
    tx.flush()
    return row


def withdraw_pick(tx: Session, *, first_id: str, second_id: str, rater_id: str) -> bool:
    """Take a choice back; False when there was none."""
    row = _pick(tx, first_id, second_id, rater_id)
    if row is None:
        return False
    privacy.bury_row(tx, row.id)
    tx.delete(row)
    tx.flush()
    return True


def picks_for(tx: Session, second_ids: Sequence[str], rater_id: str) -> dict[str, Pick]:
    """One person's latest choice by the id of the second answer."""
    query = select(Pick).where(Pick.rater_id == rater_id, Pick.second_id.in_(second_ids))
    return {row.second_id: row for row in tx.scalars(query.order_by(Pick.updated))}


def own_answers(tx: Session, first_id: str, second_id: str, owner_id: str) -> tuple[Message, Message]:
    """Two messages of a person's dialogues. Raises NotFound."""
    first = get_message(tx, first_id, owner_id=owner_id)
    return first, get_message(tx, second_id, owner_id=owner_id)


def _kind(first: Message, second: Message) -> PickKind:
    """How the two came to be: one after the other, side by side, or side by side by two versions."""
    if pairs.beside(first) != second.id:
        return "regeneration"
    return "side_by_side" if first.model_version == second.model_version else "experiment"


def comparable(first: Message, second: Message) -> bool:
    """Whether these are two finished answers to one question."""
    same_question = first.parent_id is not None and first.parent_id == second.parent_id
    ended = {first.status, second.status} <= {"complete", "interrupted"}
    return same_question and ended and first.id != second.id and first.role == "assistant"


def _pick(tx: Session, first_id: str, second_id: str, rater_id: str) -> Pick | None:
    query = select(Pick).where(Pick.first_id == first_id, Pick.second_id == second_id)
    return tx.scalar(query.where(Pick.rater_id == rater_id))
