"""How much text a guest may keep: who comes without a name must not be able to fill the disk."""

from __future__ import annotations

from sqlalchemy import Text, cast, func, select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Sentence
from tutelage.store.tables import Dialogue, Message, Rating, Report, Share, User
from tutelage.store.usage import chat_settings

MILLION = 1_000_000


class StorageFull(Conflict):
    """A guest has written as much as they may keep."""

    code = "storage_full"


def kept(tx: Session, user_id: str) -> int:
    """How many characters are kept of a person: their chats, binned ones too, and what was copied out of them."""
    mine = select(Dialogue.id).where(Dialogue.owner_id == user_id)
    judged = func.length(cast(Rating.path, Text)) + func.length(Rating.note) + func.length(Rating.ideal)
    parts = (
        select(func.sum(func.length(Message.content))).where(Message.dialogue_id.in_(mine)),
        select(func.sum(judged)).where(Rating.rater_id == user_id),
        select(func.sum(func.length(Report.content) + func.length(Report.note))).where(
            Report.reporter_id == user_id
        ),
        select(func.sum(func.length(cast(Share.messages, Text)))).where(Share.dialogue_id.in_(mine)),
    )
    return sum(tx.scalar(part) or 0 for part in parts)


def check_room(tx: Session, user: User) -> None:
    """Raises StorageFull for a guest who keeps as much as guests may; the last thing they write may go beyond."""
    most = chat_settings(tx).guest_storage
    if user.role == "guest" and most is not None and kept(tx, user.id) >= most * MILLION:
        raise StorageFull(
            Sentence("You have filled the room that a guest has here: {most} million characters.", most=most),
            hint="Sign in, or delete chats you do not need: an hour later their room is free.",
        )
