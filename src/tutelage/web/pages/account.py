"""Signing in, becoming the operator, and one's own account.

GET  /sign-in                ?next=/path
GET  /operator-link/{token}  shows a form; only sending it uses the link up (a link preview must not)
GET  /account
PUT  /account/preferences    {consent, locale}
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from tutelage.errors import InvalidRequest
from tutelage.server.passwords import SHORTEST
from tutelage.server.permissions import optional_user, session_token
from tutelage.store import accounts, dialogues, reports, shares
from tutelage.web.agents import device
from tutelage.web.catalogue import locales
from tutelage.web.pages.parts import Anybody, Parts, Templates

router = APIRouter(include_in_schema=False)
SHOWN = 200


class Preferences(BaseModel):
    """What people choose for themselves. An empty locale follows the browser."""

    consent: bool
    locale: str = ""


@router.get("/sign-in")
def sign_in(request: Request, pages: Templates, next: str = "/") -> Response:
    """The sign-in form. Works for everybody, so it makes no guest."""
    return pages.bare(request, "sign_in.html", next=local_path(next))


@router.get("/operator-link/{token}")
async def operator_link(request: Request, token: str, pages: Templates) -> Response:
    """Where the link printed by `tutelage serve` leads. Looking at it changes nothing."""
    user = await optional_user(request)
    return pages.bare(request, "operator_link.html", user=user, token=token, shortest_password=SHORTEST)


@router.get("/account")
def account(request: Request, user: Anybody, parts: Parts, pages: Templates) -> Response:
    """Everything people can set for themselves, take along or delete, and what became of their reports."""
    with parts.store.read() as tx:
        context = {
            "reports": reports.my_reports(tx, user.id),
            "sessions": accounts.list_sessions(tx, user.id),
            "here": accounts.session_id(tx, session_token(request) or ""),
            "archived": dialogues.list_dialogues(tx, user.id, limit=SHOWN, archived=True),
            "shares": shares.list_shares(tx, user.id)[:SHOWN],
        }
    return pages.page(
        request,
        "account.html",
        user=user,
        place="account",
        locales=locales(),
        device=device,
        shortest_password=SHORTEST,
        longest_instructions=accounts.LONGEST_INSTRUCTIONS,
        **context,
    )


@router.put("/account/preferences", status_code=204)
def save_preferences(body: Preferences, user: Anybody, parts: Parts) -> None:
    """Change consent and language."""
    if body.locale not in ("", *locales()):
        raise InvalidRequest(f"there is no language {body.locale}", param="locale")
    with parts.store.write() as tx:
        accounts.set_consent(tx, user.id, body.consent)
        accounts.set_locale(tx, user.id, body.locale)


def local_path(path: str) -> str:
    """The path when it stays on this server, else the home page."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if safe and path.isprintable() else "/"
