"""Answers that go on where they were cut off: the row is opened again, and remembers how it stood before."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict
from tutelage.store.dialogues import get_dialogue, get_message
from tutelage.store.ids import now
from tutelage.store.tables import Message

CONTINUED = "continued"
"""The key under which an answer's provenance lists how it stood: {at, length, status} for each time it went on."""


def whole_text(message: Message) -> str:
    """What an answer says, without the character in whose middle it was cut off."""
    return message.content.rstrip("\ufffd")


def cut_off(message: Message) -> bool:
    """Whether a model's answer could go on: it reached the longest length, or was stopped before its end."""
    cut = message.status == "interrupted" or (
        message.status == "complete" and message.finish_reason == "length"
    )
    return cut and message.author_kind == "model" and bool(whole_text(message).strip())


def check_cut_off(tx: Session, message_id: str, *, owner_id: str) -> Message:
    """An answer that may go on. Raises NotFound, Conflict for one that has its end or that others follow."""
    message = get_message(tx, message_id, owner_id=owner_id)
    if message.status == "running":
        raise Conflict("The answer is still being written.", hint="Wait for its end, or stop it.")
    if not cut_off(message):
        raise Conflict("This answer was not cut off.", hint="Ask for more in a new message.")
    if tx.scalar(select(Message.id).where(Message.parent_id == message_id).limit(1)) is not None:
        raise Conflict("The chat has gone on after this answer.", hint="Ask for more in a new message.")
    return message


def reopen_answer(tx: Session, message_id: str, *, owner_id: str, dropped: int = 0) -> Message:
    """Let an answer be written on: it is running again. Raises as `check_cut_off`.

    `dropped` is how many of the oldest messages the model cannot read any more.
    """
    message = check_cut_off(tx, message_id, owner_id=owner_id)
    kept, text = dict(message.provenance or {}), whole_text(message)
    stood = {"at": now().isoformat(), "length": len(text), "status": message.status}
    message.provenance = kept | {CONTINUED: [*kept.get(CONTINUED, ()), stood]}
    if dropped:
        message.provenance |= {"dropped_messages": dropped}
    message.content, message.status, message.finish_reason, message.beat_at = text, "running", None, now()
    get_dialogue(tx, message.dialogue_id, owner_id=owner_id).updated = now()
    tx.flush()
    return message


def text_at(message: Message, moment: datetime) -> str | None:
    """What an answer said at a moment after its first end; None where it was not complete then."""
    for stood in (message.provenance or {}).get(CONTINUED, ()):
        if datetime.fromisoformat(stood["at"]) > moment:
            return message.content[: stood["length"]] if stood["status"] == "complete" else None
    return message.content if message.status == "complete" else None
