"""A random answer to rank: first a random dialogue, then a random answer in it, without reading all.

Each dialogue has a random lot. The first eligible one at or after a random point is taken, along an index, and gets a
new lot, so that no gap between two lots favours a dialogue for long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sqlalchemy import ColumnElement, Select, or_, select
from sqlalchemy.orm import Session, aliased

from tutelage.store.dialogues import path
from tutelage.store.tables import Dialogue, LabellingTask, Lease, Message
from tutelage.store.trees import trainable

LOT_BITS = 63
_OPEN = (Dialogue.origin == "chat") & Dialogue.consent & ~Dialogue.temporary


def fair(annotator_id: str, *, own_writing: bool) -> ColumnElement[bool]:
    """What an annotator may rank, as a condition on a Dialogue and its Message: nothing twice, nothing of theirs."""
    seen = select(Lease.id).join(LabellingTask, LabellingTask.id == Lease.task_id)
    seen = seen.where(LabellingTask.message_id == Message.id, Lease.annotator_id == annotator_id)
    allowed = Dialogue.consent & ~Dialogue.temporary & ~seen.exists()
    return allowed if own_writing else allowed & _not_theirs(annotator_id)


def draw_message(tx: Session, annotator_id: str, rng: random.Random, *, own_writing: bool) -> Message | None:
    """An answer that no task stands on yet and that the annotator may rank; None when there is none.

    Eligible are complete messages that a model wrote, with nothing blocked or broken off before them.
    """
    for dialogue_id in _dialogues(tx, annotator_id, rng.getrandbits(LOT_BITS), own_writing=own_writing):
        ids = tx.scalars(_fresh(annotator_id, own_writing).where(Message.dialogue_id == dialogue_id)).all()
        for message_id in rng.sample(ids, len(ids)):
            turns = path(tx, message_id)
            if trainable(turns):
                tx.get_one(Dialogue, dialogue_id).lot = rng.getrandbits(LOT_BITS)
                return turns[-1]
    return None


def dialogues_from(annotator_id: str, condition: ColumnElement[bool], *, own_writing: bool) -> Select[Any]:
    """Ids of dialogues with an answer to draw, by lot."""
    some = _fresh(annotator_id, own_writing).where(Message.dialogue_id == Dialogue.id).correlate(Dialogue)
    query = select(Dialogue.id).where(_OPEN, condition, some.exists())
    if not own_writing:
        query = query.where(_others_dialogue(annotator_id))
    return query.order_by(Dialogue.lot)


def _dialogues(tx: Session, annotator_id: str, start: int, *, own_writing: bool) -> Iterator[str]:
    for half in (Dialogue.lot >= start, Dialogue.lot < start):
        query = dialogues_from(annotator_id, half, own_writing=own_writing)
        with tx.execute(query.execution_options(yield_per=1)) as rows:
            yield from rows.scalars()


def _fresh(annotator_id: str, own_writing: bool) -> Select[Any]:
    """Ids of answers that no task stands on.

    The status is compared as an expression: by its index, SQLite would walk all complete messages.
    """
    tasked = select(LabellingTask.id).where(LabellingTask.message_id == Message.id)
    answer = (Message.role == "assistant") & (Message.author_kind == "model")
    query = select(Message.id).where(answer, Message.status.concat("") == "complete", ~tasked.exists())
    return query if own_writing else query.where(_others_question(annotator_id))


def _not_theirs(annotator_id: str) -> ColumnElement[bool]:
    return _others_dialogue(annotator_id) & _others_question(annotator_id)


def _others_dialogue(annotator_id: str) -> ColumnElement[bool]:
    return or_(Dialogue.owner_id.is_(None), Dialogue.owner_id != annotator_id)


def _others_question(annotator_id: str) -> ColumnElement[bool]:
    question = aliased(Message)
    own = select(question.id).where(question.id == Message.parent_id, question.author_id == annotator_id)
    return ~own.exists()
