"""Whole dialogues out and in: for their owner to keep, and from where they chatted before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.dialogue import Role
from tutelage.errors import NotFound
from tutelage.store.campaigns.entries import parts_of
from tutelage.store.dialogues import MAX_TITLE, get_dialogue, thread
from tutelage.store.ids import new_id, now
from tutelage.store.imports import content_hash
from tutelage.store.tables import Demonstration, Dialogue, Message, Pick, Rating, Report, User

Turn = tuple[int | None, Role, str, str | None]
"""The index of the message it follows, who speaks, what, and which model (for an assistant)."""


def whole_dialogue(tx: Session, dialogue_id: str, *, owner_id: str) -> dict[str, Any]:
    """A dialogue with all its branches as plain JSON. The words of blocked answers are left out. Raises NotFound."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    rows = tx.scalars(select(Message).where(Message.dialogue_id == dialogue_id).order_by(Message.id))
    return {
        "id": dialogue.id,
        "title": dialogue.title,
        "created": dialogue.created.isoformat(),
        "updated": dialogue.updated.isoformat(),
        "archived": dialogue.archived,
        "temporary": dialogue.temporary,
        "may_improve_the_model": dialogue.consent,
        "messages": [_message(row) for row in rows],
    }


def as_markdown(
    tx: Session, dialogue_id: str, *, owner_id: str, names: dict[str, str], leaf_id: str | None = None
) -> str:
    """One branch of a dialogue as Markdown; `names` says how the speakers are called. Raises NotFound."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    rows = [row for row, _ in thread(tx, dialogue_id, leaf_id=leaf_id)]
    shown = [row for row in rows if row.role in names and not _hidden(row) and row.content.strip()]
    turns = [f"## {names[row.role]}\n\n{row.content.strip()}\n" for row in shown]
    return "\n".join([f"# {dialogue.title}\n", *turns])


def own_ids(tx: Session, owner_id: str) -> Sequence[str]:
    """The ids of all dialogues a person can still read, oldest first."""
    mine = (Dialogue.owner_id == owner_id) & Dialogue.binned.is_(None)
    return tx.scalars(select(Dialogue.id).where(mine).order_by(Dialogue.id)).all()


def judgements(tx: Session, user_id: str) -> dict[str, list[dict[str, Any]]]:
    """Everything a person has said about answers and the filter, and written for training, as plain JSON."""
    ratings = tx.scalars(select(Rating).where(Rating.rater_id == user_id).order_by(Rating.id))
    picks = tx.scalars(select(Pick).where(Pick.rater_id == user_id).order_by(Pick.id))
    reports = tx.scalars(select(Report).where(Report.reporter_id == user_id).order_by(Report.id))
    written = tx.scalars(
        select(Demonstration).where(Demonstration.author_id == user_id).order_by(Demonstration.id)
    )
    return {
        "ratings": [_fields(row, "message_id", "verdict", "reasons", "note", "ideal") for row in ratings],
        "picks": [_fields(row, "first_id", "second_id", "kind", "verdict") for row in picks],
        "reports": [_fields(row, "message_id", "kind", "category", "note", "status") for row in reports],
        "demonstrations": [_fields(row, "messages", "status") for row in written],
        "campaign_entries": [
            {
                "campaign": part.campaign.title,
                "message_id": part.message_id,
                "created": part.created.isoformat(),
            }
            for part in parts_of(tx, user_id)
        ],
    }


def import_tree(
    tx: Session,
    owner_id: str,
    *,
    key: str,
    title: str,
    turns: Sequence[Turn],
    created: datetime | None = None,
    source: str,
) -> Dialogue | None:
    """Store a conversation that a person had elsewhere; None when this source's `key` is there already.

    Nothing is learned from it: other models wrote its answers. Raises NotFound for an unknown owner.
    """
    if tx.get(User, owner_id) is None:
        raise NotFound("There is no such user.")
    name = content_hash({"owner": owner_id, "key": key, "turns": [] if key else list(map(list, turns))})
    known = select(Dialogue.id).where(Dialogue.source == source, Dialogue.content_hash == name)
    if tx.scalar(known) is not None:
        return None
    dialogue = Dialogue(owner_id=owner_id, title=title[:MAX_TITLE], source=source, content_hash=name)
    dialogue.created = dialogue.updated = created or now()
    tx.add(dialogue)
    tx.flush()
    ids: list[str] = []
    for parent, role, content, model in turns:
        message = Message(id=new_id(), dialogue_id=dialogue.id, role=role, content=content)
        message.parent_id = None if parent is None else ids[parent]
        message.author_kind, message.author_id = "imported", owner_id if role == "user" else None
        message.provenance = {"model": model} if model else None
        message.created = dialogue.created
        ids.append(message.id)
        tx.add(message)
    tx.flush()
    return dialogue


def _message(row: Message) -> dict[str, Any]:
    fields = _fields(row, "id", "parent_id", "role", "content", "author_kind", "status", "model_version")
    return fields | {"content": "" if _hidden(row) else row.content}


def _hidden(row: Message) -> bool:
    return row.role == "assistant" and row.status == "blocked"


def _fields(row: Any, *names: str) -> dict[str, Any]:
    return {name: getattr(row, name) for name in names} | {"created": row.created.isoformat()}
