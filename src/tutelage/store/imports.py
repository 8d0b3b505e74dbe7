"""Dialogues and comparisons from files, stored once each however often they are imported."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from sqlalchemy import Table, insert
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from tutelage.dialogue import Comparison, Dialogue, Message, check_turns
from tutelage.errors import InvalidRequest
from tutelage.store import tables
from tutelage.store.columns import clean
from tutelage.store.ids import new_id, now


def import_dialogue(tx: Session, dialogue: Dialogue, *, demonstration: bool = True) -> bool:
    """Store a dialogue from a file; False when this source has brought the same text already.

    With `demonstration` its answers are worth imitating; without, only its questions are used, as prompts.
    Raises InvalidRequest when the turns do not alternate or a message is empty.
    """
    _check(dialogue.messages)
    fields = {"messages": _plain(dialogue.messages)}
    row = {
        "id": new_id(),
        "origin": "imported",
        "source": dialogue.source,
        "author": dialogue.author,
        "demonstration": demonstration,
        "consent": True,
        "content_hash": content_hash(fields),
    }
    if not _insert_once(tx, tables.Dialogue, row):
        return False
    tx.connection().execute(insert(_table(tables.Message)), _message_rows(str(row["id"]), dialogue))
    return True


def import_comparison(tx: Session, comparison: Comparison, *, kind: str = "imported") -> bool:
    """Store judged completions from a file; False when this source has brought the same already.

    Raises InvalidRequest when the prompt does not end with a user's message or there are not two candidates.
    """
    _check(comparison.prompt, last="user")
    if len(comparison.candidates) < 2:
        raise InvalidRequest("A comparison has at least 2 candidates.", param="candidates")
    fields: dict[str, Any] = {
        "prompt": _plain(comparison.prompt),
        "candidates": list(comparison.candidates),
        "preferences": [asdict(preference) for preference in comparison.preferences],
    }
    row = {"id": new_id(), "kind": kind, "source": comparison.source, "author": comparison.author, **fields}
    return _insert_once(tx, tables.ComparisonRow, row | {"content_hash": content_hash(fields)})


def content_hash(fields: dict[str, Any]) -> str:
    """SHA-256 of some JSON, whatever the order of its keys."""
    text = json.dumps(clean(fields), ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _insert_once(tx: Session, row_class: type[tables.Base], row: dict[str, Any]) -> bool:
    connection, table = tx.connection(), _table(row_class)
    statement = (postgresql if connection.dialect.name == "postgresql" else sqlite).insert(table)
    statement = statement.on_conflict_do_nothing(index_elements=["source", "content_hash"])
    options = {"preserve_rowcount": True}  # psycopg's would be -1
    return bool(connection.execute(statement, row, execution_options=options).rowcount)


def _table(row_class: type[tables.Base]) -> Table:
    """Plain tables: mapping each row to an object would take most of an import's time."""
    assert isinstance(row_class.__table__, Table)
    return row_class.__table__


def _message_rows(dialogue_id: str, dialogue: Dialogue) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    created = now()
    for message in dialogue.messages:
        rows.append(
            {
                "id": new_id(),
                "dialogue_id": dialogue_id,
                "parent_id": rows[-1]["id"] if rows else None,
                "role": message.role,
                "content": message.content,
                "author_kind": "imported",
                "created": created,
            }
        )
    return rows


def _check(messages: tuple[Message, ...], *, last: Any = None) -> None:
    problem = check_turns(messages, last=last)
    if problem is None and any(not clean(message.content).strip() for message in messages):
        problem = "a message is empty"
    if problem is not None:
        raise InvalidRequest(f"This cannot be imported: {problem}.", param="messages")


def _plain(messages: Iterable[Message]) -> list[dict[str, str]]:
    return [{"role": message.role, "content": message.content} for message in messages]
