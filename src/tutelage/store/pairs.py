"""Two answers side by side: which they are, and which of them goes on."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.store.tables import Dialogue, Message, Pick

BESIDE = "beside"
"""The key under which the provenance of each of the two names the other."""


def put_side_by_side(first: Message, second: Message) -> None:
    """Make a pair of two answers to one question; `first` is the older row."""
    for one, other in ((first, second), (second, first)):
        one.provenance = {**(one.provenance or {}), BESIDE: other.id}


def beside(answer: Message) -> str | None:
    """The id of the answer that stands beside this one."""
    return (answer.provenance or {}).get(BESIDE)


def pair_of(tx: Session, answer: Message) -> tuple[Message, Message] | None:
    """The pair that an answer belongs to, in the order in which it is shown."""
    name = beside(answer)
    other = None if name is None else tx.get(Message, name)
    if other is None:
        return None
    return (answer, other) if answer.id < other.id else (other, answer)


def last_was_one(tx: Session, owner_id: str) -> bool:
    """Whether this person's latest turn had two answers."""
    latest = select(Dialogue.id).where(Dialogue.owner_id == owner_id)
    latest = latest.order_by(Dialogue.updated.desc(), Dialogue.id.desc()).limit(1)
    answers = select(Message).where(
        Message.dialogue_id == latest.scalar_subquery(), Message.role == "assistant"
    )
    answer = tx.scalar(answers.order_by(Message.id.desc()).limit(1))
    return answer is not None and beside(answer) is not None


def going_on(tx: Session, answer: Message) -> Message:
    """Of a pair the answer that its reader chose; before a choice the first that was not blocked."""
    pair = pair_of(tx, answer)
    if pair is None:
        return answer
    first, second = pair
    chosen = select(Pick.verdict).where(Pick.first_id == first.id, Pick.second_id == second.id)
    if tx.scalar(chosen) == "second" or first.status == "blocked" != second.status:
        return second
    return first
