"""Contests for feedback, as OpenAI held one in November 2022: readers enter what they said about answers.

One campaign is open at a time. Its rules stand still from the moment it opens; only its end can be moved. What people
enter and how winners are drawn: `entries` and `draws`.
"""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Literal, get_args

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound, Sentence
from tutelage.store.ids import now
from tutelage.store.tables import Campaign, CampaignEntry, CampaignWeight

LONGEST_TITLE = 120
LONGEST_PRIZE = 1000
LONGEST_RULES = 50_000

State = Literal["planned", "open", "closed"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What an operator writes about a campaign. `opens` and `closes` are moments in UTC."""

    title: str
    rules: str
    prize: str = ""
    weight: CampaignWeight = "person"
    opens: datetime
    closes: datetime


def state(campaign: Campaign) -> State:
    """Whether entries are taken: not yet, now, or not any more."""
    if now() < campaign.opens:
        return "planned"
    return "open" if now() < campaign.closes else "closed"


def seal(campaign: Campaign) -> str:
    """The SHA-256 of the seed, which binds the draw before anybody has entered."""
    return hashlib.sha256(campaign.seed.encode()).hexdigest()


def get_campaign(tx: Session, campaign_id: str) -> Campaign:
    """Raises NotFound."""
    campaign = tx.get(Campaign, campaign_id)
    if campaign is None:
        raise NotFound("There is no such campaign.")
    return campaign


def open_campaign(tx: Session) -> Campaign | None:
    """The campaign that takes entries now."""
    return tx.scalar(select(Campaign).where(Campaign.opens <= now(), Campaign.closes > now()))


def list_campaigns(tx: Session) -> Sequence[Campaign]:
    """All of them, the latest first."""
    return tx.scalars(select(Campaign).order_by(Campaign.opens.desc(), Campaign.id.desc())).all()


def plan_campaign(tx: Session, call: Call, *, by: str) -> Campaign:
    """A new campaign. Raises InvalidRequest; Conflict when another one is open at some of its time."""
    campaign = Campaign(seed=secrets.token_hex(16), created_by=by)
    return _write(tx, campaign, call)


def change_campaign(tx: Session, campaign_id: str, call: Call) -> Campaign:
    """Write a campaign anew before it opens. Raises NotFound, InvalidRequest, Conflict."""
    campaign = get_campaign(tx, campaign_id)
    if state(campaign) != "planned":
        raise Conflict("The rules stand once a campaign is open.", hint="Move its end, or close it.")
    return _write(tx, campaign, call)


def move_end(tx: Session, campaign_id: str, closes: datetime) -> Campaign:
    """Let an open campaign go on for longer or end sooner; an end in the past is now. Raises NotFound, Conflict."""
    campaign = get_campaign(tx, campaign_id)
    if state(campaign) != "open":
        raise Conflict("Only the end of an open campaign can be moved.")
    campaign.closes = max(closes, now())
    _check_alone(tx, campaign)
    tx.flush()
    return campaign


def delete_campaign(tx: Session, campaign_id: str) -> None:
    """Take back a campaign that nobody has entered. Raises NotFound, Conflict."""
    campaign = get_campaign(tx, campaign_id)
    if tx.scalar(select(CampaignEntry.id).where(CampaignEntry.campaign_id == campaign_id).limit(1)):
        raise Conflict("People have entered this campaign already.", hint="Close it instead.")
    tx.delete(campaign)
    tx.flush()


def _write(tx: Session, campaign: Campaign, call: Call) -> Campaign:
    _check(call)
    campaign.title, campaign.rules, campaign.prize = (
        call.title.strip(),
        call.rules.strip(),
        call.prize.strip(),
    )
    campaign.weight, campaign.opens, campaign.closes = call.weight, max(call.opens, now()), call.closes
    with tx.no_autoflush:
        _check_alone(tx, campaign)
    tx.add(campaign)
    tx.flush()
    return campaign


def _check(call: Call) -> None:
    lengths = {"title": LONGEST_TITLE, "prize": LONGEST_PRIZE, "rules": LONGEST_RULES}
    for name, longest in lengths.items():
        if len(getattr(call, name)) > longest:
            raise InvalidRequest(
                Sentence("This may have at most {most} characters.", most=longest), param=name
            )
    for name in ("title", "rules"):
        if not getattr(call, name).strip():
            raise InvalidRequest("A campaign needs a title and rules.", param=name)
    if call.weight not in get_args(CampaignWeight):
        raise InvalidRequest("Winners are drawn by `person` or by `entry`.", param="weight")
    if call.closes <= max(call.opens, now()):
        message = "A campaign ends after it opens, and in the future."
        raise InvalidRequest(message, param="closes", hint="Both times are UTC.")


def _check_alone(tx: Session, campaign: Campaign) -> None:
    query = select(Campaign).where(Campaign.opens < campaign.closes, Campaign.closes > campaign.opens)
    other = next((row for row in tx.scalars(query) if row is not campaign), None)
    if other is not None:
        raise Conflict(
            Sentence(
                "“{title}” is open from {opens} to {closes}.",
                title=other.title,
                opens=_moment(other.opens),
                closes=_moment(other.closes),
            ),
            hint="One campaign is open at a time: choose other dates.",
        )


def _moment(at: datetime) -> str:
    return f"{at:%Y-%m-%d %H:%M} UTC"
