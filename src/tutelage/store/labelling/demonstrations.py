"""Dialogues that people write from both sides, from the first draft to their review."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.dialogue import ROLES, check_turns
from tutelage.dialogue import Message as Turn
from tutelage.errors import Conflict, InvalidRequest, NotFound, Sentence
from tutelage.store.ids import now
from tutelage.store.tables import Demonstration, DemonstrationStatus, Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """What a dialogue was written for: a topic, by a version of the guidelines, and what a reviewer should know."""

    topic: str = ""
    guidelines: int | None = None
    flag: str = ""


def save_demonstration(
    tx: Session,
    *,
    author_id: str,
    messages: Sequence[dict[str, Any]],
    status: Literal["draft", "submitted", "accepted"],
    demonstration_id: str | None = None,
    message_id: str | None = None,
    brief: Brief | None = None,
) -> Demonstration:
    """Save a draft, or hand a dialogue in; `messages` are {role, content, provenance}.

    `message_id` is the message that a demonstration improves on: it is used only while that message's
    dialogue may be. What is handed in a second time as it was changes nothing. Raises InvalidRequest when what is
    handed in is not a dialogue that ends with an answer, NotFound for somebody else's demonstration, Conflict for one
    that was accepted.
    """
    if status not in ("draft", "submitted", "accepted"):
        raise InvalidRequest(Sentence("There is no status “{status}”.", status=status), param="status")
    kept = [_message(message) for message in messages]
    if status != "draft":
        _check_whole(kept)
    if demonstration_id is None:
        row = Demonstration(author_id=author_id)
    else:
        row = get_demonstration(tx, demonstration_id, author_id=author_id)
    if row.status == "accepted" and status != "draft" and row.messages == kept:
        return row
    if row.status == "accepted":
        raise Conflict("This demonstration was accepted; it cannot be changed.", hint="Write a new one.")
    if message_id is not None and tx.get(Message, message_id) is None:
        raise NotFound("There is no such message.")
    row.messages, row.status, row.updated = kept, status, now()
    row.message_id = message_id or row.message_id
    if brief is not None:
        row.topic, row.guidelines, row.flag = brief.topic, brief.guidelines, brief.flag
    tx.add(row)
    tx.flush()
    return row


def get_demonstration(tx: Session, demonstration_id: str, *, author_id: str) -> Demonstration:
    """Raises NotFound when there is none, or when it is somebody else's."""
    row = tx.get(Demonstration, demonstration_id)
    if row is None or row.author_id != author_id:
        raise NotFound("There is no such demonstration.")
    return row


def drafts(tx: Session, author_id: str) -> Sequence[Demonstration]:
    """What an author has begun, or has to look at again; last changed first."""
    open_ = Demonstration.status.in_(("draft", "sent_back"))
    query = select(Demonstration).where(Demonstration.author_id == author_id, open_)
    return tx.scalars(query.order_by(Demonstration.updated.desc())).all()


def delete_draft(tx: Session, demonstration_id: str, *, author_id: str) -> None:
    """Throw a draft away. Raises NotFound, Conflict when it was handed in."""
    row = get_demonstration(tx, demonstration_id, author_id=author_id)
    if row.status in ("submitted", "accepted"):
        raise Conflict("This demonstration was handed in already.")
    tx.delete(row)
    tx.flush()


def list_demonstrations(
    tx: Session, *, status: DemonstrationStatus | None = None, limit: int = 100
) -> Sequence[Demonstration]:
    """Of all authors, flagged ones first, then newest first. Raises InvalidRequest for an unknown status."""
    if status is not None and status not in get_args(DemonstrationStatus):
        raise InvalidRequest(Sentence("There is no status “{status}”.", status=status), param="status")
    flagged_first = (Demonstration.flag == "", Demonstration.id.desc())
    query = select(Demonstration).order_by(*flagged_first).limit(limit)
    return tx.scalars(query if status is None else query.where(Demonstration.status == status)).all()


def review_demonstration(
    tx: Session,
    demonstration_id: str,
    *,
    decision: Literal["accepted", "sent_back"],
    by: str,
    note: str = "",
    texts: Sequence[str] | None = None,
) -> Demonstration:
    """Accept what was handed in, or send it back; `texts` are its messages as the reviewer has changed them.

    Raises NotFound, InvalidRequest, Conflict for a draft.
    """
    row = tx.get(Demonstration, demonstration_id)
    if row is None:
        raise NotFound("There is no such demonstration.")
    if decision not in ("accepted", "sent_back"):
        raise InvalidRequest("A review is `accepted` or `sent_back`.", param="decision")
    if row.status not in ("submitted", "accepted"):
        raise Conflict("This demonstration has not been handed in.")
    if texts is not None:
        _edit(row, texts)
    row.status, row.reviewer_id, row.review_note = decision, by, note
    tx.flush()
    return row


def _edit(row: Demonstration, texts: Sequence[str]) -> None:
    """Put the reviewer's texts in place of the author's, which are kept beside them."""
    if len(texts) != len(row.messages):
        raise InvalidRequest("A review changes messages; it adds or removes none.", param="texts")
    edited = [
        message
        if text.strip() == message["content"].strip()
        else message
        | {"content": text.strip(), "provenance": {**(message["provenance"] or {}), "reviewed": True}}
        for message, text in zip(row.messages, texts, strict=True)
    ]
    if edited != row.messages:
        _check_whole(edited)
        row.handed_in = row.handed_in or row.messages
        row.messages = edited


def _message(message: dict[str, Any]) -> dict[str, Any]:
    role, content = message.get("role"), message.get("content")
    if role not in ROLES or not isinstance(content, str):
        raise InvalidRequest("A message has a role and a text.", param="messages")
    return {"role": role, "content": content, "provenance": message.get("provenance")}


def _check_whole(messages: Sequence[dict[str, Any]]) -> None:
    turns = [Turn(message["role"], message["content"]) for message in messages]
    problem = check_turns(turns, last="assistant")
    if problem is None and any(not turn.content.strip() for turn in turns):
        problem = Sentence("a message is empty")
    if problem is not None:
        raise InvalidRequest(
            Sentence("This dialogue cannot be handed in: {problem}.", problem=problem), param="messages"
        )
