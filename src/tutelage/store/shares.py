"""Reading for others: a copy of one branch behind a link. It can be taken away, and nobody can change it."""

from __future__ import annotations

import secrets

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, NotFound
from tutelage.store.dialogues import get_dialogue, thread
from tutelage.store.ids import now
from tutelage.store.tables import Dialogue, Message, Share


def share(tx: Session, dialogue_id: str, *, owner_id: str, leaf_id: str | None = None) -> Share:
    """Copy a branch (as `dialogues.thread`); shared again, the copy is made anew under the same link.

    Instructions, and what the filter has blocked, are left out. Raises NotFound, InvalidRequest for a temporary
    dialogue and for one with nothing to read.
    """
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    if dialogue.temporary:
        raise InvalidRequest("A temporary chat cannot be shared.")
    rows = [row for row, _ in thread(tx, dialogue_id, leaf_id=leaf_id)]
    messages = [{"role": row.role, "content": row.content} for row in rows if _readable(row)]
    if not messages:
        raise InvalidRequest("There is nothing to share yet.")
    made = _shared(tx, dialogue_id) or Share(token=secrets.token_urlsafe(24), dialogue_id=dialogue_id)
    made.title, made.messages, made.created = dialogue.title, messages, now()
    tx.add(made)
    tx.flush()
    return made


def share_of(tx: Session, dialogue_id: str, *, owner_id: str) -> Share | None:
    """How a dialogue is shared now. Raises NotFound."""
    get_dialogue(tx, dialogue_id, owner_id=owner_id)
    return _shared(tx, dialogue_id)


def list_shares(tx: Session, owner_id: str) -> list[Share]:
    """All that a person shares, newest first."""
    query = select(Share).join(Dialogue, Dialogue.id == Share.dialogue_id)
    mine = (Dialogue.owner_id == owner_id) & Dialogue.binned.is_(None)
    return list(tx.scalars(query.where(mine).order_by(Share.created.desc())))


def shared(tx: Session, token: str) -> Share:
    """What a link shows. Raises NotFound when it was taken away, or its dialogue was."""
    found = tx.get(Share, token)
    dialogue = tx.get(Dialogue, found.dialogue_id) if found else None
    if found is None or dialogue is None or dialogue.binned is not None:
        raise NotFound("This link leads nowhere, or not any more.")
    return found


def unshare(tx: Session, dialogue_id: str, *, owner_id: str) -> None:
    """Take the link away; nothing happens when there is none. Raises NotFound for the dialogue."""
    found = share_of(tx, dialogue_id, owner_id=owner_id)
    if found is not None:
        tx.delete(found)
        tx.flush()


def _shared(tx: Session, dialogue_id: str) -> Share | None:
    return tx.scalar(select(Share).where(Share.dialogue_id == dialogue_id))


def _readable(row: Message) -> bool:
    return row.role != "system" and row.status in ("complete", "interrupted") and bool(row.content.strip())
