"""Conversations as trees of messages: who may see them, how they grow, how an answer is written.

The owner is part of every look-up by a person: somebody else's dialogue does not exist for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.orm import Session, aliased

from tutelage.dialogue import ROLES, Role
from tutelage.errors import Conflict, InvalidRequest, NotFound, Sentence
from tutelage.store import pairs, privacy
from tutelage.store.ids import now
from tutelage.store.tables import AuthorKind, Dialogue, Message, User
from tutelage.store.trees import children_of, ids_below, upwards

MAX_TITLE = 200


def create_dialogue(
    tx: Session,
    owner_id: str,
    *,
    title: str = "",
    origin: str = "chat",
    source: str = "",
    temporary: bool = False,
) -> Dialogue:
    """An empty dialogue. It may train models if its owner consents and it is not temporary."""
    owner = tx.get(User, owner_id)
    if owner is None:
        raise NotFound("There is no such user.")
    dialogue = Dialogue(owner_id=owner_id, title=title[:MAX_TITLE], origin=origin, source=source)
    dialogue.temporary = temporary
    dialogue.consent = owner.consent and not temporary
    tx.add(dialogue)
    tx.flush()
    return dialogue


def listed(owner_id: str) -> ColumnElement[bool]:
    """What a person finds in lists and by searching: all their dialogues but temporary and binned ones."""
    return (Dialogue.owner_id == owner_id) & Dialogue.temporary.is_(False) & Dialogue.binned.is_(None)


def list_dialogues(
    tx: Session, owner_id: str, *, limit: int, before: str | None = None, archived: bool = False
) -> Sequence[Dialogue]:
    """A person's dialogues, last changed first; `before` is the id of the last one already seen.

    Either those in use or the archived ones.
    """
    query = select(Dialogue).where(listed(owner_id), Dialogue.archived.is_(archived))
    if before is not None:
        seen = get_dialogue(tx, before, owner_id=owner_id)
        query = query.where(
            (Dialogue.updated < seen.updated) | ((Dialogue.updated == seen.updated) & (Dialogue.id < seen.id))
        )
    return tx.scalars(query.order_by(Dialogue.updated.desc(), Dialogue.id.desc()).limit(limit)).all()


def get_dialogue(tx: Session, dialogue_id: str, *, owner_id: str) -> Dialogue:
    """Raises NotFound when there is none, when it is somebody else's, or when it lies in the bin."""
    dialogue = tx.get(Dialogue, dialogue_id)
    if dialogue is None or dialogue.owner_id != owner_id or dialogue.binned is not None:
        raise NotFound("There is no such dialogue.")
    return dialogue


def get_message(tx: Session, message_id: str, *, owner_id: str) -> Message:
    """A message in one of the owner's dialogues. Raises NotFound as `get_dialogue`."""
    message = tx.get(Message, message_id)
    if message is None:
        raise NotFound("There is no such message.")
    get_dialogue(tx, message.dialogue_id, owner_id=owner_id)
    return message


def rename_dialogue(tx: Session, dialogue_id: str, *, owner_id: str, title: str) -> Dialogue:
    """Raises NotFound, InvalidRequest."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    if not 1 <= len(title.strip()) <= MAX_TITLE:
        raise InvalidRequest(Sentence("A title has 1 to {most} characters.", most=MAX_TITLE), param="title")
    dialogue.title = title.strip()
    tx.flush()
    return dialogue


def archive_dialogue(tx: Session, dialogue_id: str, *, owner_id: str, archived: bool) -> Dialogue:
    """Put a dialogue out of the list, or back into it. Raises NotFound."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    dialogue.archived = archived
    tx.flush()
    return dialogue


def delete_dialogue(tx: Session, dialogue_id: str, *, owner_id: str) -> None:
    """Delete a dialogue and all that hangs on it, ratings and rankings too. Raises NotFound."""
    dialogue = get_dialogue(tx, dialogue_id, owner_id=owner_id)
    privacy.bury(tx, Dialogue.id == dialogue_id)
    tx.delete(dialogue)
    tx.flush()


def delete_dialogues(tx: Session, owner_id: str) -> int:
    """Delete all dialogues of a person; returns how many there were."""
    ids = tx.scalars(select(Dialogue.id).where(Dialogue.owner_id == owner_id)).all()
    privacy.bury(tx, Dialogue.owner_id == owner_id)
    tx.execute(delete(Dialogue).where(Dialogue.owner_id == owner_id))
    return len(ids)


def add_message(
    tx: Session,
    dialogue_id: str,
    *,
    parent_id: str | None,
    role: Role,
    content: str,
    author_kind: AuthorKind,
    author_id: str | None = None,
    idempotency_key: str | None = None,
    status: Literal["complete", "blocked"] = "complete",
    model_version: str | None = None,
    sampling: dict[str, Any] | None = None,
    provenance: dict[str, Any] | None = None,
    filter_verdict: dict[str, Any] | None = None,
) -> Message:
    """A finished message under `parent_id` (None: at the root). The same key again gives the first one's row.

    NUL characters in the text are removed and lone surrogates replaced.
    Raises NotFound for an unknown dialogue or a parent that is not in it, InvalidRequest for a role that
    cannot follow the parent's, Conflict while the parent is still being written.
    """
    if idempotency_key is not None:
        query = select(Message).where(Message.dialogue_id == dialogue_id)
        sent = tx.scalar(query.where(Message.idempotency_key == idempotency_key))
        if sent is not None:
            return sent
    message = Message(dialogue_id=dialogue_id, parent_id=parent_id, role=role, content=content)
    message.author_kind, message.author_id, message.idempotency_key = author_kind, author_id, idempotency_key
    message.status, message.provenance = status, provenance
    message.model_version, message.sampling = model_version, sampling
    _set_verdict(message, filter_verdict)
    return _grow(tx, message)


def sent_message(tx: Session, owner_id: str, idempotency_key: str) -> Message | None:
    """What this person sent with this key, in whatever dialogue: for a send that makes its dialogue."""
    query = select(Message).join(Dialogue, Dialogue.id == Message.dialogue_id)
    mine = (Dialogue.owner_id == owner_id) & (Message.idempotency_key == idempotency_key)
    return tx.scalar(query.where(mine).order_by(Message.id).limit(1))


def start_answer(
    tx: Session, dialogue_id: str, *, parent_id: str, model_version: str, sampling: dict[str, Any]
) -> Message:
    """The row of an answer whose first token is still to come. Raises as `add_message`."""
    message = Message(dialogue_id=dialogue_id, parent_id=parent_id, role="assistant", content="")
    message.author_kind, message.status, message.beat_at = "model", "running", now()
    message.model_version, message.sampling = model_version, sampling
    return _grow(tx, message)


def flush_answer(tx: Session, message_id: str, *, content: str) -> Message:
    """Store what has been written so far; a beat as well.

    Raises Conflict when the answer has ended, NotFound when nobody is to have it any more.
    """
    message = _running(tx, message_id)
    dialogue = tx.get(Dialogue, message.dialogue_id)
    if dialogue is None or dialogue.binned is not None:
        raise NotFound("There is no such dialogue.")
    message.content, message.beat_at = content, now()
    tx.flush()
    return message


def finish_answer(
    tx: Session,
    message_id: str,
    *,
    content: str,
    status: Literal["complete", "interrupted", "blocked"],
    finish_reason: str | None,
    prompt_tokens: int | None = None,
    completion_tokens: int | None = None,
    filter_verdict: dict[str, Any] | None = None,
) -> Message:
    """End an answer. Raises Conflict when it has ended already."""
    message = _running(tx, message_id)
    message.content, message.status, message.finish_reason = content, status, finish_reason
    message.prompt_tokens, message.completion_tokens = prompt_tokens, completion_tokens
    _set_verdict(message, filter_verdict)
    tx.flush()
    return message


def interrupt_answer(tx: Session, message_id: str) -> Message:
    """End an answer with what its row has. Raises Conflict when it has ended already."""
    message = _running(tx, message_id)
    message.status = "interrupted"
    tx.flush()
    return message


def reap_answers(tx: Session, *, older_than: timedelta) -> int:
    """Mark running answers whose last beat is older as interrupted; returns how many."""
    late = (Message.status == "running") & (Message.beat_at <= now() - older_than)
    ids = tx.scalars(select(Message.id).where(late)).all()
    tx.execute(update(Message).where(Message.id.in_(ids)).values(status="interrupted"))
    return len(ids)


def path(tx: Session, message_id: str) -> list[Message]:
    """The conversation up to and with this message, root first. Raises NotFound."""
    steps = select(Message.id, Message.parent_id).where(Message.id == message_id).cte(recursive=True)
    parent = aliased(Message)
    steps = steps.union_all(select(parent.id, parent.parent_id).join(steps, parent.id == steps.c.parent_id))
    rows = tx.scalars(select(Message).where(Message.id.in_(select(steps.c.id)))).all()
    if not rows:
        raise NotFound("There is no such message.")
    return upwards({row.id: row for row in rows}, message_id)


def thread(tx: Session, dialogue_id: str, *, leaf_id: str | None = None) -> list[tuple[Message, list[str]]]:
    """One branch of a dialogue, root first, each message with the ids of its siblings (itself included).

    The branch ends in the newest message of the dialogue, or in the newest below `leaf_id`; of two newest answers
    side by side in the one that goes on. Siblings are in the order they were written. Raises NotFound for a message
    that is not in this dialogue.
    """
    rows = tx.scalars(select(Message).where(Message.dialogue_id == dialogue_id).order_by(Message.id)).all()
    by_id = {row.id: row for row in rows}
    if leaf_id is not None and leaf_id not in by_id:
        raise NotFound("There is no such message.")
    if not rows:
        return []
    children = children_of(rows)
    leaf = rows[-1].id if leaf_id is None else max(ids_below(children, leaf_id))
    if leaf != leaf_id:
        leaf = pairs.going_on(tx, by_id[leaf]).id
    return [(row, [child.id for child in children[row.parent_id]]) for row in upwards(by_id, leaf)]


def _grow(tx: Session, message: Message) -> Message:
    dialogue = tx.get(Dialogue, message.dialogue_id)
    if dialogue is None:
        raise NotFound("There is no such dialogue.")
    parent = None if message.parent_id is None else tx.get(Message, message.parent_id)
    if message.parent_id is not None and (parent is None or parent.dialogue_id != dialogue.id):
        raise NotFound("There is no such message in this dialogue.")
    _check_turn(message.role, parent)
    tx.add(message)
    dialogue.updated = now()
    tx.flush()
    return message


def _check_turn(role: Role, parent: Message | None) -> None:
    if role not in ROLES:
        raise InvalidRequest(
            Sentence("There is no role “{role}”.", role=role),
            param="role",
            hint=Sentence("Use one of {roles}.", roles=", ".join(ROLES)),
        )
    if parent is not None and parent.status == "running":
        raise Conflict("The answer is still being written.", hint="Wait for its end, or stop it.")
    before = None if parent is None else parent.role
    allowed = {"system": (None,), "user": (None, "system", "assistant"), "assistant": ("user",)}
    if before not in allowed[role]:
        place = Sentence("at the beginning")
        if before is not None:
            place = Sentence("after one of the {before}", before=before)
        raise InvalidRequest(
            Sentence("A message of the {role} cannot stand {place}.", role=role, place=place),
            param="parent_id",
        )


def _running(tx: Session, message_id: str) -> Message:
    message = tx.get(Message, message_id)
    if message is None:
        raise NotFound("There is no such message.")
    if message.status != "running":
        raise Conflict("This answer has ended already.")
    return message


def _set_verdict(message: Message, verdict: dict[str, Any] | None) -> None:
    message.filter_verdict = verdict
    message.policy_version = None if verdict is None else verdict.get("policy_version")
