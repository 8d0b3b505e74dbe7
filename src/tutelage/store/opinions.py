"""What readers think, for operators: counts of everybody's ratings, words only of those that may be read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any, Literal, get_args

from sqlalchemy import ColumnElement, exists, select
from sqlalchemy.orm import Session

from tutelage.errors import Denied, NotFound
from tutelage.store import audit
from tutelage.store.campaigns.entries import shown_messages
from tutelage.store.ids import now
from tutelage.store.tables import CampaignEntry, Dialogue, Message, Rating, Report, Share

Ground = Literal["consent", "entry", "report", "share"]


@dataclass(slots=True)
class Tally:
    """Thumbs and reasons of one version, and its thumbs by week (the Monday it began on)."""

    version: str
    up: int = 0
    down: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    weeks: dict[date, tuple[int, int]] = field(default_factory=dict)

    @property
    def share(self) -> float:
        """Of thumbs up, from 0 to 1."""
        return self.up / (self.up + self.down)


@dataclass(frozen=True, slots=True)
class Opinion:
    """One rating without its words; `ground` says why they may be read, None that they may not."""

    rating: Rating
    ground: Ground | None


@dataclass(frozen=True, slots=True)
class Reading:
    """What an operator may read of a rating: messages of the path it judges, and what its author wrote about them."""

    messages: Sequence[dict[str, Any]]
    note: str = ""
    ideal: str = ""


def tallies(tx: Session, *, weeks: int = 12) -> list[Tally]:
    """All ratings by version, the newest version first; weeks without ratings are there too."""
    found: dict[str, Tally] = {}
    first = _monday(now().date()) - timedelta(weeks=weeks - 1)
    days = [first + timedelta(weeks=number) for number in range(weeks)]
    query = select(Rating.model_version, Rating.verdict, Rating.reasons, Rating.updated)
    for version, verdict, reasons, updated in tx.execute(query):
        tally = found.setdefault(version or "–", Tally(version or "–", weeks=dict.fromkeys(days, (0, 0))))
        up = verdict == "up"
        tally.up, tally.down = tally.up + up, tally.down + (not up)
        tally.reasons.update(reasons)
        week = _monday(updated.date())
        if week in tally.weeks:
            before = tally.weeks[week]
            tally.weeks[week] = (before[0] + up, before[1] + (not up))
    return sorted(found.values(), key=lambda each: (len(each.version), each.version), reverse=True)


def list_opinions(
    tx: Session, *, version: str | None = None, reason: str | None = None, limit: int = 200
) -> Sequence[Opinion]:
    """Ratings of one version, with one reason, or all of them; newest first."""
    query = select(Rating, *_grounds()).order_by(Rating.updated.desc())
    if version is not None:
        query = query.where(Rating.model_version == version)
    opinions: list[Opinion] = []
    for row in tx.execute(query.execution_options(yield_per=500)):
        if reason is None or reason in row[0].reasons:
            opinions.append(Opinion(row[0], _ground(*row[1:])))
        if len(opinions) == limit:
            break
    return opinions


def read_opinion(tx: Session, rating_id: str, *, reader_id: str) -> Reading:
    """The words that a rating judges, as far as they may be read; the reading is written down in the audit log.

    With consent all of them; of an entry in a campaign what it shares; of a reported message that message; of a shared
    dialogue what is in the share. Raises NotFound, Denied when there is none of these.
    """
    row = tx.execute(select(Rating, *_grounds()).where(Rating.id == rating_id)).one_or_none()
    if row is None:
        raise NotFound("There is no such rating.")
    rating, ground = row[0], _ground(*row[1:])
    if ground is None:
        raise Denied("Whoever wrote this has not let anybody read it.")
    audit.record(tx, reader_id, "read_feedback", rating_id, detail={"ground": ground})
    if ground == "consent":
        return Reading(rating.path, rating.note, rating.ideal)
    if ground == "entry":
        return Reading(shown_messages(rating), rating.note, rating.ideal)
    return Reading(rating.path[-1:] if ground == "report" else _shared(tx, rating))


def _shared(tx: Session, rating: Rating) -> list[dict[str, Any]]:
    """The messages of a rating's path that stand in the share of its dialogue."""
    query = select(Share.messages).join(Message, Message.dialogue_id == Share.dialogue_id)
    shown = tx.scalar(query.where(Message.id == rating.message_id)) or []
    words = {(message["role"], message["content"]) for message in shown}
    return [message for message in rating.path if (message["role"], message["content"]) in words]


def _grounds() -> tuple[ColumnElement[bool], ...]:
    """By consent to learning, by an entry in a campaign, by a report of that message, by a link to the dialogue."""
    message = Message.id == Rating.message_id
    dialogue = message & (Message.dialogue_id == Dialogue.id)
    consented = Rating.consent & exists().where(dialogue, Dialogue.consent)
    entered = exists().where(dialogue, Dialogue.binned.is_(None), CampaignEntry.rating_id == Rating.id)
    reported = exists().where(Report.message_id == Rating.message_id)
    shared = exists().where(dialogue, Dialogue.binned.is_(None), Share.dialogue_id == Dialogue.id)
    return consented, entered, reported, shared


def _ground(*allowed: bool) -> Ground | None:
    """The first of the grounds, in the order of `_grounds`, that there is."""
    return next((ground for ground, there in zip(get_args(Ground), allowed, strict=True) if there), None)


def _monday(day: date) -> date:
    return day - timedelta(days=day.weekday())
