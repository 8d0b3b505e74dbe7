"""Finding one's own dialogues by their words. The only place that knows which database searches, and how.

SQLite's FTS5 with trigrams: it needs no word boundaries, so it finds Chinese, and parts of words. Words of less
than three characters have no trigram; they are looked for in the rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, Integer, and_, column, select, table, text
from sqlalchemy.orm import Session

from tutelage.store.dialogues import listed
from tutelage.store.tables import Dialogue, Message, SearchRow

LONGEST_QUERY = 200
SCANNED = 1000
"""Of the newest messages that fit, so many are looked at: enough for a list, and never slow."""
BEFORE, AFTER = 30, 90


@dataclass(frozen=True, slots=True)
class Found:
    """A dialogue with the newest message that fits; None when only the title fits."""

    dialogue: Dialogue
    message_id: str | None
    excerpt: str


def search(tx: Session, owner_id: str, query: str, *, limit: int = 30) -> list[Found]:
    """A person's dialogues, archived ones too, in which all words of the query stand together in a message or title.

    Last changed first. An empty query finds nothing.
    """
    words = query[:LONGEST_QUERY].split()
    if not words:
        return []
    found = {hit.dialogue.id: hit for hit in [*_by_title(tx, owner_id, words, limit)]}
    for hit in _by_message(tx, owner_id, words):
        if found.get(hit.dialogue.id, hit).message_id is None or hit.dialogue.id not in found:
            found[hit.dialogue.id] = hit
    return sorted(found.values(), key=lambda hit: hit.dialogue.updated, reverse=True)[:limit]


def _by_title(tx: Session, owner_id: str, words: Sequence[str], limit: int) -> Iterator[Found]:
    fits = and_(*(Dialogue.title.contains(word, autoescape=True) for word in words))
    rows = tx.scalars(
        select(Dialogue).where(listed(owner_id), fits).order_by(Dialogue.updated.desc()).limit(limit)
    )
    yield from (Found(row, None, "") for row in rows)


def _by_message(tx: Session, owner_id: str, words: Sequence[str]) -> Iterator[Found]:
    query = select(Message.id, Message.content, Dialogue).join(Dialogue, Dialogue.id == Message.dialogue_id)
    query = query.join(SearchRow, SearchRow.message_id == Message.id).where(listed(owner_id), _fits(words))
    seen: set[str] = set()
    for message_id, content, dialogue in tx.execute(query.order_by(Message.id.desc()).limit(SCANNED)):
        if dialogue.id not in seen:
            seen.add(dialogue.id)
            yield Found(dialogue, message_id, excerpt(content, words))


def _fits(words: Sequence[str]) -> ColumnElement[bool]:
    """Long words by the index, short ones by reading; both whatever the case of letters."""
    long = [word for word in words if len(word) >= 3]
    short = [word for word in words if len(word) < 3]
    conditions: list[ColumnElement[bool]] = [
        Message.content.contains(word, autoescape=True) for word in short
    ]
    if long:
        phrases = " ".join('"{}"'.format(word.replace('"', '""')) for word in long)
        fits = text("search_texts MATCH :phrases").bindparams(phrases=phrases)
        index = select(column("rowid", Integer)).select_from(table("search_texts")).where(fits)
        conditions.append(SearchRow.id.in_(index))
    return and_(*conditions)


def excerpt(content: str, words: Sequence[str]) -> str:
    """The surroundings of the first place where one of the words stands, on one line."""
    match = re.search("|".join(map(re.escape, words)), content, re.IGNORECASE)
    place = match.start() if match else 0
    start, end = max(0, place - BEFORE), place + AFTER
    piece = " ".join(content[start:end].split())
    return ("…" if start else "") + piece + ("…" if end < len(content) else "")
