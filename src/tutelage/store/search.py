"""Finding one's own dialogues by their words. The only place that knows which database searches, and how.

By trigrams: they need no word boundaries, so Chinese is found, and parts of words. Words of less than three characters
have no trigram; they are looked for in the newest messages.

SQLite's FTS5 keeps every person's messages in a range of row numbers of their own, newest last, so that a search skips
to them and ends after `MOST_HITS`. PostgreSQL's planner goes by the person's dialogues or by pg_trgm's index of all
messages, whichever it finds to be less, and checks each message that may fit. Both are slow, or name only the newest
messages, where a word is frequent: then the dialogues changed last are read instead, until the list is full.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import and_, not_, select, text
from sqlalchemy.orm import Session

from tutelage.store.columns import clean
from tutelage.store.dialogues import listed
from tutelage.store.tables import Dialogue, Message, SearchOwner

LONGEST_QUERY = 200
MOST_FOUND = 30
MOST_HITS = 1000
"""So many of the newest messages that fit are looked at."""
FREQUENT, LOOKED = 100, 1000
"""Where so many messages fit, or nobody knows how many do, so many are read without the index first."""
MOST_READ = 20_000
"""Where no word has three characters, so many of the newest messages are read."""
TIDY_PAGES = 50
"""So much of the index is rewritten at a time: some 5 ms during which nobody else writes."""
BEFORE, AFTER = 30, 90


@dataclass(frozen=True, slots=True)
class Found:
    """A dialogue with the newest message that fits; None when only the title fits."""

    dialogue: Dialogue
    message_id: str | None
    excerpt: str


def search(tx: Session, owner_id: str, query: str, *, limit: int = MOST_FOUND) -> list[Found]:
    """A person's dialogues, archived ones too, in which all words of the query stand together in a message or title.

    Last changed first. An empty query finds nothing.
    """
    words = clean(query[:LONGEST_QUERY]).split()
    if not words:
        return []
    found = {hit.dialogue.id: hit for hit in _by_title(tx, owner_id, words, limit)}
    found |= {hit.dialogue.id: hit for hit in _by_message(tx, owner_id, words, limit)}
    return sorted(found.values(), key=lambda hit: hit.dialogue.updated, reverse=True)[:limit]


def tidy(tx: Session) -> bool:
    """Merge parts of SQLite's text index, as many pages as nobody has to wait for; whether there is more to merge.

    FTS5 writes a new part with every message and merges four alike as it goes; a search looks for each trigram in each
    part. Where two alike are merged in quiet moments, it reads half as many pages.
    """
    if _on_server(tx):
        return False
    before = tx.scalar(_CHANGES)
    tx.execute(_MERGE, {"pages": TIDY_PAGES})
    return bool(tx.scalar(_CHANGES) > before + 1)  # one change is the statement itself (FTS5's manual)


_CHANGES = text("SELECT total_changes()")
_MERGE = text("INSERT INTO search_texts (search_texts, rank) VALUES ('merge', :pages)")


def _on_server(tx: Session) -> bool:
    return tx.get_bind().dialect.name == "postgresql"


def _by_title(tx: Session, owner_id: str, words: Sequence[str], limit: int) -> Iterator[Found]:
    # SQLite's LIKE is blind to the case of ASCII letters, and twice as fast without the `lower` of icontains.
    holds = Dialogue.title.icontains if _on_server(tx) else Dialogue.title.contains
    fits = and_(*(holds(word, autoescape=True) for word in words))
    rows = tx.scalars(
        select(Dialogue).where(listed(owner_id), fits).order_by(Dialogue.updated.desc()).limit(limit)
    )
    yield from (Found(row, None, "") for row in rows)


def _by_message(tx: Session, owner_id: str, words: Sequence[str], limit: int) -> list[Found]:
    """The newest message that fits of each dialogue; the `limit` dialogues that were changed last."""
    ids = None if _on_server(tx) else _newest_in_file(tx, owner_id, words)
    if ids is None or len(ids) >= FREQUENT:
        found = _in_last_changed(tx, owner_id, words, limit)
        if len(found) == limit:
            return found
    return _of_messages(
        tx, owner_id, words, _newest_on_server(tx, owner_id, words) if ids is None else ids, limit
    )


def _in_last_changed(tx: Session, owner_id: str, words: Sequence[str], limit: int) -> list[Found]:
    """Without an index, quick for frequent words: reads `LOOKED` messages, the dialogue changed last first."""
    rows = tx.execute(
        select(Message.dialogue_id, Message.id, Message.content)
        .join(Dialogue, Dialogue.id == Message.dialogue_id)
        .where(listed(owner_id), Message.role != "system", Message.status != "running")
        .where(not_(and_(Message.role == "assistant", Message.status == "blocked")))
        .order_by(Dialogue.updated.desc(), Dialogue.id.desc(), Message.id.desc())
        .limit(LOOKED)
    )
    lower = [word.lower() for word in words]
    hits: dict[str, str] = {}
    for dialogue_id, message_id, content in rows:
        if dialogue_id not in hits and all(map(content.lower().__contains__, lower)):
            hits[dialogue_id] = message_id
            if len(hits) == limit:
                break
    return _shown(tx, words, hits)


def _of_messages(
    tx: Session, owner_id: str, words: Sequence[str], ids: Sequence[str], limit: int
) -> list[Found]:
    """The dialogues of these messages, newest first, as far as that takes; of those the ones changed last."""
    newest: dict[str, str] = {}
    mine: dict[str, datetime] = {}
    shown = listed(owner_id)
    for first in range(0, len(ids), FREQUENT):
        lot = ids[first : first + FREQUENT]
        # By ids alone: SQLite would rather walk through all dialogues of the owner.
        found = tx.execute(select(Message.id, Message.dialogue_id).where(Message.id.in_(lot)))
        places = {row.id: row.dialogue_id for row in found}
        newest = {places[each]: each for each in reversed(lot) if each in places} | newest
        query = select(Dialogue.id, Dialogue.updated, shown.label("shown"))
        rows = tx.execute(query.where(Dialogue.id.in_(set(places.values()))))
        mine |= {row.id: row.updated for row in rows if row.shown}
        if len(mine) >= limit:
            break
    last = sorted(mine, key=mine.__getitem__, reverse=True)[:limit]
    return _shown(tx, words, {each: newest[each] for each in last})


def _shown(tx: Session, words: Sequence[str], hits: dict[str, str]) -> list[Found]:
    """By the ids of dialogues and of a message in each."""
    rows = tx.execute(
        select(Dialogue, Message.id, Message.content)
        .join(Message, Message.dialogue_id == Dialogue.id)
        .where(Message.id.in_(hits.values()))
    )
    return [Found(dialogue, message_id, excerpt(content, words)) for dialogue, message_id, content in rows]


def _newest_in_file(tx: Session, owner_id: str, words: Sequence[str]) -> Sequence[str]:
    """On SQLite: ids of a person's messages with all the words, whatever the case of letters; newest first."""
    owner = tx.scalar(select(SearchOwner.number).where(SearchOwner.owner_id == owner_id))
    if owner is None:
        return []
    first, last = owner << 32, (owner + 1 << 32) - 1
    long = [word for word in words if len(word) >= 3]
    short = {f"short_{place}": f"%{_escaped(word)}%" for place, word in enumerate(words) if len(word) < 3}
    fits = [f"search_texts.content LIKE :{name} ESCAPE '/'" for name in short]
    if long:
        fits.append("search_texts MATCH :phrases")
    else:
        newest = tx.scalar(_LAST, {"first": first, "last": last})
        first = max(first, (newest or first) - MOST_READ)
    phrases = " ".join('"{}"'.format(word.replace('"', '""')) for word in long)
    query = text(_TEXTS.format(fits=" AND ".join(fits)))
    wanted = {"first": first, "last": last, "most": MOST_HITS, "phrases": phrases, **short}
    return tx.scalars(query, {name: wanted[name] for name in query.compile().params}).all()


_LAST = text("SELECT id FROM search_rows WHERE id BETWEEN :first AND :last ORDER BY id DESC LIMIT 1")
# CROSS JOIN is SQLite's word for: in this order. The index gives its rows newest first, and nothing is sorted.
_TEXTS = """
    SELECT search_rows.message_id FROM search_texts CROSS JOIN search_rows ON search_rows.id = search_texts.rowid
    WHERE search_texts.rowid BETWEEN :first AND :last AND {fits}
    ORDER BY search_texts.rowid DESC LIMIT :most
"""


def _newest_on_server(tx: Session, owner_id: str, words: Sequence[str]) -> Sequence[str]:
    """On PostgreSQL: the same."""
    names = {f"word_{place}": f"%{_escaped(word)}%" for place, word in enumerate(words)}
    fits = " AND ".join(
        f"messages.content {_like(word)} :{name} ESCAPE '/'" for name, word in zip(names, words, strict=True)
    )
    by_trigram = any(len(word) >= 3 for word in words)
    query = text((_BY_TRIGRAM if by_trigram else _OF_THE_NEWEST).format(mine=_MINE, fits=fits))
    limit = {"most": MOST_HITS} | ({} if by_trigram else {"read": MOST_READ})
    return tx.scalars(query, {"owner": owner_id, **limit, **names}).all()


# The last condition of these is that of the index.
_MINE = """
    FROM messages JOIN dialogues ON dialogues.id = messages.dialogue_id
    WHERE dialogues.owner_id = :owner AND messages.role <> 'system'
    AND NOT (messages.role = 'assistant' AND messages.status = 'blocked') AND messages.status <> 'running'
"""
# MATERIALIZED: found first and sorted then, or the planner might walk everybody's messages from the newest on.
_BY_TRIGRAM = """
    WITH found AS MATERIALIZED (SELECT messages.id {mine} AND {fits})
    SELECT id FROM found ORDER BY id DESC LIMIT :most
"""
_OF_THE_NEWEST = """
    WITH messages AS MATERIALIZED (SELECT messages.id, messages.content {mine} ORDER BY messages.id DESC LIMIT :read)
    SELECT id FROM messages WHERE {fits} ORDER BY id DESC LIMIT :most
"""


def _like(word: str) -> str:
    """ILIKE takes five times as long: it writes the whole text in small letters first. Chinese has none."""
    return "LIKE" if word.lower() == word == word.upper() else "ILIKE"


def _escaped(word: str) -> str:
    """A word in which LIKE sees letters only."""
    return re.sub(r"[/%_]", r"/\g<0>", word)


def excerpt(content: str, words: Sequence[str]) -> str:
    """The surroundings of the first place where one of the words stands, on one line."""
    match = re.search("|".join(map(re.escape, words)), content, re.IGNORECASE)
    place = match.start() if match else 0
    start, end = max(0, place - BEFORE), place + AFTER
    piece = " ".join(content[start:end].split())
    return ("…" if start else "") + piece + ("…" if end < len(content) else "")
