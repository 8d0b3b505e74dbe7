"""Entries: ratings that their authors have put into a campaign, which lets operators read them.

An entry is its rating and nothing more: a changed rating changes it, a withdrawn or deleted one ends it. It does not
let any model learn.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Denied, InvalidRequest, NotFound
from tutelage.store import privacy
from tutelage.store.campaigns import get_campaign, state
from tutelage.store.dialogues import get_message
from tutelage.store.tables import Campaign, CampaignEntry, Dialogue, Message, Rating, User

_LIVING = (
    (Rating.id == CampaignEntry.rating_id)
    & (Message.id == Rating.message_id)
    & (Dialogue.id == Message.dialogue_id)
    & Dialogue.binned.is_(None)
)
"""Joins entries to their ratings, and leaves out those whose chat is about to be deleted."""


@dataclass(frozen=True, slots=True)
class Entered:
    """An entry with the rating it is and its author."""

    entry: CampaignEntry
    rating: Rating
    person: User


@dataclass(frozen=True, slots=True)
class Part:
    """A person's entry in a campaign, for that person."""

    id: str
    campaign: Campaign
    message_id: str
    dialogue_id: str
    created: datetime


def enter(tx: Session, *, campaign_id: str, message_id: str, user_id: str) -> CampaignEntry:
    """Put one's rating of an answer into an open campaign; again, it stays there.

    Raises NotFound for a message that is not one's own or not rated; Conflict when the campaign is not open; Denied
    for people without a name and for operators, who draw the winners; InvalidRequest for temporary chats.
    """
    campaign = get_campaign(tx, campaign_id)
    message = get_message(tx, message_id, owner_id=user_id)
    rating = _own_rating(tx, message_id, user_id)
    if rating is None:
        raise NotFound("You have not rated this answer.", hint="Rate it first.")
    _check_person(tx.get_one(User, user_id))
    if tx.get_one(Dialogue, message.dialogue_id).temporary:
        raise InvalidRequest("A temporary chat is erased soon, so it cannot be entered.", param="message_id")
    if state(campaign) != "open":
        raise Conflict("This campaign does not take entries now.", hint="Your feedback is kept without it.")
    found = _entry(tx, campaign_id, rating.id)
    if found is None:
        found = CampaignEntry(campaign_id=campaign_id, rating_id=rating.id)
        tx.add(found)
        tx.flush()
    return found


def take_back(tx: Session, *, campaign_id: str, message_id: str, user_id: str) -> bool:
    """End an entry, whether its campaign is open or not; False when there was none. Raises NotFound."""
    get_message(tx, message_id, owner_id=user_id)
    rating = _own_rating(tx, message_id, user_id)
    found = rating and _entry(tx, campaign_id, rating.id)
    if not found:
        return False
    privacy.bury_row(tx, found.id)
    tx.delete(found)
    tx.flush()
    return True


def campaigns_of(tx: Session, ratings: Sequence[Rating]) -> dict[str, list[str]]:
    """Ids of the campaigns that ratings were entered into, by rating id."""
    query = select(CampaignEntry.rating_id, CampaignEntry.campaign_id)
    found: dict[str, list[str]] = {rating.id: [] for rating in ratings}
    for rating_id, campaign_id in tx.execute(query.where(CampaignEntry.rating_id.in_(found))):
        found[rating_id].append(campaign_id)
    return found


def parts_of(tx: Session, user_id: str) -> list[Part]:
    """All entries of one person, newest first."""
    query = select(Campaign, Message, CampaignEntry).join(Campaign, Campaign.id == CampaignEntry.campaign_id)
    query = query.where(_LIVING, Rating.rater_id == user_id).order_by(CampaignEntry.id.desc())
    return [
        Part(entry.id, campaign, message.id, message.dialogue_id, entry.created)
        for campaign, message, entry in tx.execute(query)
    ]


def list_entries(tx: Session, campaign_id: str, *, limit: int, after: str | None = None) -> Sequence[Entered]:
    """Oldest first; `after` is the id of the last entry already seen. Those in a bin are left out."""
    query = select(CampaignEntry, Rating, User).join(User, User.id == Rating.rater_id)
    query = query.where(_LIVING, CampaignEntry.campaign_id == campaign_id)
    query = query.order_by(CampaignEntry.id).limit(limit)
    rows = tx.execute(query if after is None else query.where(CampaignEntry.id > after))
    return [Entered(entry, rating, person) for entry, rating, person in rows]


def count_entries(tx: Session, campaign_id: str) -> tuple[int, int]:
    """(entries, people)."""
    query = select(func.count(CampaignEntry.id), func.count(Rating.rater_id.distinct()))
    entries, people = tx.execute(query.where(_LIVING, CampaignEntry.campaign_id == campaign_id)).one()
    return entries, people


def shown_messages(rating: Rating) -> list[dict[str, Any]]:
    """The part of a judged conversation that an entry shares: without instructions and what the filter has blocked."""
    return [row for row in rating.path if row["role"] != "system" and row["status"] != "blocked"]


def _own_rating(tx: Session, message_id: str, user_id: str) -> Rating | None:
    return tx.scalar(select(Rating).where(Rating.message_id == message_id, Rating.rater_id == user_id))


def _entry(tx: Session, campaign_id: str, rating_id: str) -> CampaignEntry | None:
    entry = CampaignEntry
    return tx.scalar(select(entry).where(entry.campaign_id == campaign_id, entry.rating_id == rating_id))


def _check_person(person: User) -> None:
    if person.name is None:
        raise Denied("Winners are told by their name.", hint="Choose a name under your account.")
    if person.role == "operator":
        raise Denied("Operators draw the winners, so they cannot enter.")
