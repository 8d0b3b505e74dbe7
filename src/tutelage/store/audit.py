"""What people with power did, for other people with power to see."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.store.tables import AuditAction, AuditEntry, User


def record(
    tx: Session,
    actor_id: str | None,
    action: AuditAction,
    subject: str = "",
    *,
    detail: dict[str, Any] | None = None,
) -> AuditEntry:
    """Note that somebody did something to a row; `detail` never holds what people wrote.

    On the command line nobody is signed in: the actor is None.
    """
    entry = AuditEntry(actor_id=actor_id, action=action, subject=subject, detail=detail)
    tx.add(entry)
    tx.flush()
    return entry


def list_entries(
    tx: Session, *, limit: int = 200, before: str | None = None
) -> Sequence[tuple[AuditEntry, str | None]]:
    """Entries with the name of who acted, newest first; `before` is the id of the last one already seen."""
    query = select(AuditEntry, User.name).join(User, User.id == AuditEntry.actor_id, isouter=True)
    query = query.order_by(AuditEntry.id.desc()).limit(limit)
    rows = tx.execute(query if before is None else query.where(AuditEntry.id < before))
    return [(entry, name) for entry, name in rows]
