"""Which workers are there: each shows itself every few seconds, whether it waits or carries out a round."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.store.ids import now
from tutelage.store.tables import Worker

BEAT = timedelta(seconds=10)
ALIVE = timedelta(seconds=45)
"""One that has not shown itself for so long has died."""
KEPT = timedelta(days=1)


def show(tx: Session, name: str) -> None:
    """A worker is there. Those that died long ago are forgotten."""
    tx.execute(delete(Worker).where(Worker.seen < now() - KEPT))
    row = tx.get(Worker, name) or Worker(name=name)
    row.seen = now()
    tx.add(row)
    tx.flush()


def leave(tx: Session, name: str) -> None:
    """A worker ends."""
    tx.execute(delete(Worker).where(Worker.name == name))


def alive(tx: Session) -> Sequence[str]:
    """The names of those that are there."""
    return tx.scalars(select(Worker.name).where(Worker.seen > now() - ALIVE).order_by(Worker.name)).all()
