"""What trainers go by: Markdown that operators change, each change a new version."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, Sentence
from tutelage.store.tables import Guidelines

PLACES = ("write", "rank")
MAX_LENGTH = 50_000


def current_guidelines(tx: Session, place: str) -> Guidelines | None:
    """The newest version; None while operators have written none, or an empty one."""
    newest = next(iter(guidelines_history(tx, place, limit=1)), None)
    return newest if newest is not None and newest.content else None


def guidelines_history(tx: Session, place: str, *, limit: int = 100) -> Sequence[Guidelines]:
    """All versions, newest first."""
    query = select(Guidelines).where(Guidelines.place == place)
    return tx.scalars(query.order_by(Guidelines.version.desc()).limit(limit)).all()


def change_guidelines(tx: Session, place: str, content: str, *, by: str) -> Guidelines:
    """A new version; the same text again is no change. Raises InvalidRequest."""
    if place not in PLACES:
        raise InvalidRequest(Sentence("There are no guidelines for “{place}”.", place=place), param="place")
    if len(content) > MAX_LENGTH:
        raise InvalidRequest(
            Sentence("Guidelines have at most {most} characters.", most=MAX_LENGTH), param="content"
        )
    newest = next(iter(guidelines_history(tx, place, limit=1)), None)
    if newest is not None and newest.content == content.strip():
        return newest
    row = Guidelines(place=place, version=1 + (newest.version if newest else 0), content=content.strip())
    row.author_id = by
    tx.add(row)
    tx.flush()
    return row
