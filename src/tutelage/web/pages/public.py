"""What anybody may read, signed in or not. Nothing here writes, and nobody is made a guest by looking.

GET /s/{token}        a copy of a chat that its owner shares
GET /terms            what happens with what people write here
GET /invite/{token}   a form; only sending it uses the invitation up
GET /campaigns/{id}   the rules of a contest for feedback, and one's own part in it
"""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from sqlalchemy.orm import Session

from tutelage.server.passwords import SHORTEST
from tutelage.server.permissions import optional_user
from tutelage.store import campaigns, invites, shares
from tutelage.store.bin import BIN_LIFE, TEMPORARY_LIFE
from tutelage.store.campaigns import draws, entries
from tutelage.store.tables import Campaign, User
from tutelage.store.usage import chat_settings
from tutelage.web import markdown
from tutelage.web.pages.parts import Parts, Templates

router = APIRouter(include_in_schema=False)


@router.get("/s/{token}")
def shared(request: Request, token: str, parts: Parts, pages: Templates) -> Response:
    """The copy behind a link. It has no script, and search engines are asked to leave it alone."""
    with parts.store.read() as tx:
        share = shares.shared(tx, token)
    turns = [(row["role"], row["content"], _html(row)) for row in share.messages]
    response = pages.bare(request, "shared.html", share=share, turns=turns)
    response.headers["x-robots-tag"] = "noindex, nofollow"
    response.headers["referrer-policy"] = "no-referrer"
    return response


@router.get("/terms")
async def terms(request: Request, parts: Parts, pages: Templates) -> Response:
    """What is kept, who may read it, what is learned from it, and what the operator has to say."""
    user = await optional_user(request)

    def render() -> Response:
        with parts.store.read() as tx:
            settings = chat_settings(tx)
        return pages.bare(
            request,
            "terms.html",
            user=user,
            settings=settings,
            own=Markup(markdown.render(settings.terms)),
            bin_minutes=int(BIN_LIFE.total_seconds() // 60),
            temporary_hours=int(TEMPORARY_LIFE.total_seconds() // 3600),
        )

    return await run_sync(render)


@router.get("/invite/{token}")
def invitation(request: Request, token: str, parts: Parts, pages: Templates) -> Response:
    """Where an invitation leads. Looking at it changes nothing; one that is closed says so when it is sent."""
    with parts.store.read() as tx:
        invites.open_invite(tx, token)
    return pages.bare(
        request, "invite.html", token=token, shortest_password=SHORTEST, providers=parts.providers
    )


@router.get("/campaigns/{campaign_id}")
async def campaign(request: Request, campaign_id: str, parts: Parts, pages: Templates) -> Response:
    """What a contest is about, how its winners are drawn, and what the reader has entered and won."""
    reader = await optional_user(request)

    def render() -> Response:
        with parts.store.read() as tx:
            found = campaigns.get_campaign(tx, campaign_id)
            winners = [winner for winner, _ in draws.list_winners(tx, campaign_id)]
            tickets = _tickets(tx, found, reader)
        return pages.bare(
            request,
            "campaign.html",
            user=reader,
            campaign=found,
            state=campaigns.state(found),
            seal=campaigns.seal(found),
            rules=Markup(markdown.render(found.rules)),
            winners=winners,
            tickets=tickets,
            won=reader is not None and any(winner.winner_id == reader.id for winner in winners),
        )

    return await run_sync(render)


def _tickets(tx: Session, campaign: Campaign, reader: User | None) -> list[str]:
    """What the reader puts into the draw."""
    if reader is None:
        return []
    own = [part.id for part in entries.parts_of(tx, reader.id) if part.campaign.id == campaign.id]
    return [reader.id] if own and campaign.weight == "person" else own


def _html(row: dict[str, str]) -> Markup:
    """People's own words stay as they wrote them."""
    return Markup(markdown.render(row["content"])) if row["role"] == "assistant" else Markup()
