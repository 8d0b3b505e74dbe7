"""What may not be used any more: rows that were deleted, and rows whose owners have withdrawn consent.

Rows that are deleted leave a tombstone, their id and nothing else, so that snapshots which were taken before
can be cleared of them (see `tutelage.store.export.erasure`).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, CompoundSelect, Select, insert, literal, select, union_all
from sqlalchemy.orm import Session

from tutelage.store.columns import Time
from tutelage.store.ids import now
from tutelage.store.tables import (
    Demonstration,
    Dialogue,
    LabellingTask,
    Message,
    Pick,
    Ranking,
    Rating,
    Tombstone,
)

ALLOWED: ColumnElement[bool] = Dialogue.consent & Dialogue.temporary.is_(False)


def bury(tx: Session, dialogues: ColumnElement[bool]) -> None:
    """Set tombstones for dialogues that are about to be deleted, and for all that hangs on them."""
    ids = _ids(dialogues).subquery()
    tx.execute(insert(Tombstone).from_select(["id", "created"], select(ids.c.id, literal(now(), Time()))))


def bury_row(tx: Session, row_id: str) -> None:
    """Set the tombstone of a single row."""
    tx.add(Tombstone(id=row_id))
    tx.flush()


def withdrawn(tx: Session) -> set[str]:
    """Ids of all rows that a model may not be trained on, or not any more."""
    ratings = select(Rating.id).where(Rating.consent.is_(False))
    unwilling = union_all(ratings, select(Pick.id).where(Pick.consent.is_(False)))
    return {*tx.scalars(select(Tombstone.id)), *tx.scalars(_ids(~ALLOWED)), *tx.scalars(unwilling)}


def _ids(dialogues: ColumnElement[bool]) -> CompoundSelect[Any]:
    """The ids of some dialogues and of all rows that hold a part of them and can stand in a snapshot."""

    def within(query: Select[Any]) -> Select[Any]:
        return query.join(Dialogue, Dialogue.id == Message.dialogue_id).where(dialogues)

    rating = select(Rating.id).join(Message, Message.id == Rating.message_id)
    pick = select(Pick.id).join(Message, Message.id == Pick.first_id)
    better = select(Demonstration.id).join(Message, Message.id == Demonstration.message_id)
    ranking = select(Ranking.id).join(LabellingTask, LabellingTask.id == Ranking.task_id)
    ranking = ranking.join(Message, Message.id == LabellingTask.message_id)
    hanging = [within(query) for query in (select(Message.id), rating, pick, better, ranking)]
    return union_all(select(Dialogue.id).where(dialogues), *hanging)
