"""What anybody may read, signed in or not. Nothing here writes, and nobody is made a guest by looking.

GET /s/{token}        a copy of a chat that its owner shares
GET /terms            what happens with what people write here
GET /invite/{token}   a form; only sending it uses the invitation up
"""

from __future__ import annotations

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup

from tutelage.server.passwords import SHORTEST
from tutelage.server.permissions import optional_user
from tutelage.store import invites, shares
from tutelage.store.bin import BIN_LIFE, TEMPORARY_LIFE
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


def _html(row: dict[str, str]) -> Markup:
    """People's own words stay as they wrote them."""
    return Markup(markdown.render(row["content"])) if row["role"] == "assistant" else Markup()
