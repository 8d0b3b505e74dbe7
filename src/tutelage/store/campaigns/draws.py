"""Drawing winners, so that anybody can check it afterwards.

Everybody's lot is the SHA-256 of `SEED:TICKET`, and the smallest lots win. A campaign by `person` gives each person one
ticket, their id; one by `entry` gives them a ticket an entry, the entry's id, of which the best counts. The seed was
fixed before anybody entered (the rules page has shown its hash since), so the order is nobody's choice, and taking an
entry back changes nobody else's lot. Drawing again draws the next in this order: nobody wins twice.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, Sentence
from tutelage.store.campaigns import get_campaign, state
from tutelage.store.campaigns.entries import Entered, list_entries
from tutelage.store.tables import Campaign, CampaignWinner, User

MOST_WINNERS = 1000
_BATCH = 1000


def draw(tx: Session, campaign_id: str, count: int) -> list[CampaignWinner]:
    """The next `count` winners, or as many as are left. Raises NotFound, InvalidRequest; Conflict before the end."""
    campaign = get_campaign(tx, campaign_id)
    if state(campaign) != "closed":
        raise Conflict(
            "Winners are drawn when the campaign has ended.", hint="Wait for its end, or close it."
        )
    if not 1 <= count <= MOST_WINNERS:
        raise InvalidRequest(Sentence("Draw between 1 and {most} winners.", most=MOST_WINNERS), param="count")
    before = [row for row, _ in list_winners(tx, campaign_id)]
    won = {row.winner_id for row in before}
    waiting = sorted((best, person) for person, best in lots(tx, campaign).items() if person not in won)
    if not waiting:
        raise Conflict("There is nobody left to draw.")
    drawn = [
        CampaignWinner(campaign_id=campaign_id, place=place, winner_id=person, lot=best)
        for place, (best, person) in enumerate(waiting[:count], start=len(before) + 1)
    ]
    tx.add_all(drawn)
    tx.flush()
    return drawn


def lots(tx: Session, campaign: Campaign) -> dict[str, str]:
    """The best lot of each person in a campaign by person id, operators aside."""
    found: dict[str, str] = {}
    after: str | None = None
    while batch := list_entries(tx, campaign.id, limit=_BATCH, after=after):
        for entered in batch:
            if entered.person.role != "operator":
                one = lot(campaign.seed, ticket(campaign, entered))
                found[entered.person.id] = min(one, found.get(entered.person.id, one))
        after = batch[-1].entry.id
    return found


def ticket(campaign: Campaign, entered: Entered) -> str:
    """What an entry puts into the draw."""
    return entered.person.id if campaign.weight == "person" else entered.entry.id


def lot(seed: str, ticket: str) -> str:
    """SHA-256 as hexadecimal; smaller is better."""
    return hashlib.sha256(f"{seed}:{ticket}".encode()).hexdigest()


def list_winners(tx: Session, campaign_id: str) -> Sequence[tuple[CampaignWinner, User | None]]:
    """In the order drawn; without the person where they have deleted their account."""
    query = select(CampaignWinner, User).join(User, User.id == CampaignWinner.winner_id, isouter=True)
    query = query.where(CampaignWinner.campaign_id == campaign_id).order_by(CampaignWinner.place)
    return [(winner, person) for winner, person in tx.execute(query)]


def won_by(tx: Session, user_id: str) -> set[str]:
    """Ids of the campaigns in which a person was drawn."""
    return {*tx.scalars(select(CampaignWinner.campaign_id).where(CampaignWinner.winner_id == user_id))}
