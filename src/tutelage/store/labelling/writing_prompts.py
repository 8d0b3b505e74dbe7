"""What writers begin from: prompts by topic, and a topic drawn by the operators' mix."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, Sentence
from tutelage.store.columns import clean
from tutelage.store.labelling.settings import TOPICS, labelling_settings
from tutelage.store.tables import WritingPrompt

MAX_LENGTH = 8000


@dataclass(frozen=True, slots=True)
class Start:
    """What to write about: a topic, and perhaps a first message."""

    topic: str
    prompt_id: str | None = None
    content: str = ""


def add_writing_prompts(tx: Session, topic: str, contents: Iterable[str]) -> int:
    """Store first messages for a topic, each text once; returns how many are new. Raises InvalidRequest."""
    if topic not in TOPICS:
        raise InvalidRequest(
            Sentence("There is no topic “{topic}”.", topic=topic),
            param="topic",
            hint=Sentence("Use {topics}.", topics=", ".join(TOPICS)),
        )
    texts = {clean(text).strip()[:MAX_LENGTH] for text in contents} - {""}
    by_hash = {hashlib.sha256(text.encode()).hexdigest(): text for text in sorted(texts)}
    known = set(tx.scalars(select(WritingPrompt.content_hash).where(WritingPrompt.topic == topic)))
    rows = [
        WritingPrompt(topic=topic, content=text, content_hash=digest)
        for digest, text in by_hash.items()
        if digest not in known
    ]
    tx.add_all(rows)
    tx.flush()
    return len(rows)


def draw_start(tx: Session, rng: random.Random, *, topic: str | None = None) -> Start:
    """A topic by the operators' mix, or the one that is asked for, and one of its least used prompts."""
    if topic is None:
        mix = labelling_settings(tx).topics
        topic = rng.choices([*mix], weights=[*mix.values()])[0]
    query = select(WritingPrompt).where(WritingPrompt.topic == topic)
    least = select(func.min(WritingPrompt.uses)).where(WritingPrompt.topic == topic).scalar_subquery()
    found = tx.scalar(query.where(WritingPrompt.uses == least).order_by(func.random()).limit(1))
    return Start(topic) if found is None else Start(topic, found.id, found.content)


def note_use(tx: Session, prompt_id: str) -> None:
    """A dialogue that began with this prompt was handed in."""
    row = WritingPrompt
    tx.execute(update(row).where(row.id == prompt_id).values(uses=row.uses + 1))


def count_writing_prompts(tx: Session) -> dict[str, int]:
    """How many there are of each topic."""
    query = select(WritingPrompt.topic, func.count()).group_by(WritingPrompt.topic)
    counted = dict(tx.execute(query).tuples().all())
    return {topic: counted.get(topic, 0) for topic in TOPICS}
