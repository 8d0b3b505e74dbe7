"""What a snapshot taken now would hold, and what it would leave out, with the reason."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from itertools import chain, islice
from typing import Any

from sqlalchemy import ScalarSelect, Select, func, select
from sqlalchemy.orm import Session

from tutelage.store.export import streams
from tutelage.store.masking import mask
from tutelage.store.privacy import ALLOWED
from tutelage.store.tables import Demonstration, Dialogue, Message, Pick, Ranking, Rating

REASONS = (
    "no_consent",
    "temporary",
    "blocked_or_broken",
    "without_consent",
    "nothing_to_compare",
    "draft",
    "sent_back",
    "all_bad",
    "settled_otherwise",
)


@dataclass(frozen=True, slots=True)
class Outlook:
    """`enters` is {stream: {source: rows}}, `left_out` {reason: rows}, `masked` how many messages are masked."""

    enters: dict[str, dict[str, int]]
    left_out: dict[str, int]
    masked: int


def outlook(tx: Session) -> Outlook:
    """Counts only; nothing is written."""
    enters = {
        "demonstrations": Counter(item.source for item in streams.demonstrations(tx)),
        "comparisons": Counter(item.source for item in streams.comparisons(tx)),
        "prompts": Counter(item.source for item in streams.prompts(tx)),
    }
    left_out = {reason: tx.scalar(query) or 0 for reason, query in _queries().items()}
    left_out["nothing_to_compare"] = _alone(tx)
    return Outlook(
        {name: dict(sorted(counts.items())) for name, counts in enters.items()},
        {reason: left_out[reason] for reason in REASONS},
        _masked(tx),
    )


def comparisons_up_to(tx: Session, most: int) -> int:
    """How many comparisons a snapshot taken now would hold; no more than `most` are counted."""
    return sum(1 for _ in islice(streams.comparisons(tx), most))


def _queries() -> dict[str, Select[Any]]:
    dialogues = select(func.count()).select_from(Dialogue).where(Dialogue.origin == "chat")
    answers = select(func.count()).select_from(Message).join(Dialogue, Dialogue.id == Message.dialogue_id)
    written = select(func.count()).select_from(Demonstration)
    rankings = select(func.count()).select_from(Ranking)
    settled = select(Ranking.task_id).where(Ranking.adjudication)

    def unwilling(table: type[Rating | Pick]) -> ScalarSelect[int]:
        return select(func.count()).select_from(table).where(~table.consent).scalar_subquery()

    return {
        "no_consent": dialogues.where(~Dialogue.consent, ~Dialogue.temporary),
        "temporary": dialogues.where(Dialogue.temporary),
        "blocked_or_broken": answers.where(ALLOWED, Message.status.in_(("blocked", "interrupted"))),
        "without_consent": select(unwilling(Rating) + unwilling(Pick)),
        "draft": written.where(Demonstration.status == "draft"),
        "sent_back": written.where(Demonstration.status == "sent_back"),
        "all_bad": rankings.where(Ranking.all_bad),
        "settled_otherwise": rankings.where(~Ranking.adjudication, Ranking.task_id.in_(settled)),
    }


def _alone(tx: Session) -> int:
    """Thumbs without an ideal answer and without an opposite thumb on another answer to the same question."""
    query = select(Message.parent_id, Rating.rater_id, Rating.verdict, Rating.ideal)
    query = query.join(Message, Message.id == Rating.message_id)
    query = query.join(Dialogue, Dialogue.id == Message.dialogue_id).where(ALLOWED, Rating.consent)
    by_question: dict[tuple[str | None, str], list[tuple[str, str]]] = {}
    for parent_id, rater_id, verdict, ideal in tx.execute(query):
        by_question.setdefault((parent_id, rater_id), []).append((verdict, ideal))
    return sum(
        sum(not ideal.strip() for _, ideal in given)
        for given in by_question.values()
        if len({verdict for verdict, _ in given}) == 1
    )


def _masked(tx: Session) -> int:
    """Messages of chats and of written dialogues, and ideal answers, that hold something to mask."""
    said = select(Message.content).join(Dialogue, Dialogue.id == Message.dialogue_id)
    said = said.where(ALLOWED, Dialogue.origin == "chat", Message.status == "complete")
    ideal = select(Rating.ideal).where(Rating.consent, Rating.ideal != "")
    written = select(Demonstration.messages).where(Demonstration.status.in_(("submitted", "accepted")))
    texts = chain(
        tx.scalars(said.execution_options(yield_per=1000)),
        tx.scalars(ideal),
        (message["content"] for row in tx.scalars(written) for message in row),
    )
    return sum(mask(text) != text for text in texts)
