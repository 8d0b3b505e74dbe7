"""Dialogues on their way out: binned ones, which their owner can take back for a while, and temporary ones.

A binned dialogue does not exist for anybody, and nothing is learned from it from that moment on.
"""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from tutelage.errors import NotFound
from tutelage.store import privacy
from tutelage.store.dialogues import get_dialogue
from tutelage.store.ids import now
from tutelage.store.tables import Dialogue, User

BIN_LIFE = timedelta(hours=1)
TEMPORARY_LIFE = timedelta(days=1)


def bin_dialogue(tx: Session, dialogue_id: str, *, owner_id: str) -> None:
    """Take a dialogue away; an answer that is being written in it ends. Raises NotFound."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    dialogue.binned, dialogue.consent = now(), False
    tx.flush()


def restore_dialogue(tx: Session, dialogue_id: str, *, owner_id: str) -> Dialogue:
    """Give a binned dialogue back; one that is not binned stays as it is. Raises NotFound when it was purged."""
    dialogue, owner = tx.get(Dialogue, dialogue_id), tx.get(User, owner_id)
    if dialogue is None or owner is None or dialogue.owner_id != owner_id:
        raise NotFound("There is no such dialogue.")
    dialogue.binned, dialogue.consent = None, owner.consent and not dialogue.temporary
    tx.flush()
    return dialogue


def purge(tx: Session) -> int:
    """Delete what has lain in the bin for `BIN_LIFE`, and temporary dialogues after `TEMPORARY_LIFE` of silence."""
    binned = Dialogue.binned <= now() - BIN_LIFE
    silent = Dialogue.temporary & (Dialogue.updated <= now() - TEMPORARY_LIFE)
    ids = tx.scalars(select(Dialogue.id).where(binned | silent)).all()
    if ids:
        privacy.bury(tx, Dialogue.id.in_(ids))
        tx.execute(delete(Dialogue).where(Dialogue.id.in_(ids)))
    return len(ids)
