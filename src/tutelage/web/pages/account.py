"""One's own account.

GET    /account
PUT    /account/preferences      {consent, locale, theme}
DELETE /account/identities/{id}  another way to sign in that is not wanted any more
"""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from tutelage.errors import InvalidRequest, Sentence
from tutelage.server.passwords import SHORTEST
from tutelage.server.permissions import session_token
from tutelage.store import accounts, dialogues, identities, reports, shares
from tutelage.store.campaigns import draws, entries
from tutelage.web.agents import device
from tutelage.web.catalogue import locales
from tutelage.web.pages.parts import Anybody, Parts, Templates

router = APIRouter(include_in_schema=False)
SHOWN = 200
YEAR = 31_536_000  # seconds


class Preferences(BaseModel):
    """What people choose for themselves. An empty locale follows the browser, an empty theme the system."""

    consent: bool
    locale: str = ""
    theme: Literal["", "light", "dark"] = ""


@router.get("/account")
def account(request: Request, user: Anybody, parts: Parts, pages: Templates) -> Response:
    """Everything people can set for themselves, take along or delete, and what became of their reports."""
    with parts.store.read() as tx:
        context = {
            "reports": reports.my_reports(tx, user.id),
            "identities": identities.list_identities(tx, user.id),
            "sessions": accounts.list_sessions(tx, user.id),
            "here": accounts.session_id(tx, session_token(request) or ""),
            "archived": dialogues.list_dialogues(tx, user.id, limit=SHOWN, archived=True),
            "shares": shares.list_shares(tx, user.id)[:SHOWN],
            "entries": entries.parts_of(tx, user.id)[:SHOWN],
            "won": draws.won_by(tx, user.id),
        }
    return pages.page(
        request,
        "account.html",
        user=user,
        place="account",
        locales=locales(),
        device=device,
        providers=parts.providers,
        provider_names={each.settings.issuer: each.settings.name for each in parts.providers.values()},
        shortest_password=SHORTEST,
        longest_instructions=accounts.LONGEST_INSTRUCTIONS,
        **context,
    )


@router.put("/account/preferences", status_code=204)
def save_preferences(body: Preferences, user: Anybody, parts: Parts, response: Response) -> None:
    """Change consent and language, and the theme of this browser."""
    if body.locale not in ("", *locales()):
        raise InvalidRequest(
            Sentence("there is no language {language}", language=body.locale), param="locale"
        )
    with parts.store.write() as tx:
        accounts.set_consent(tx, user.id, body.consent)
        accounts.set_locale(tx, user.id, body.locale)
    response.set_cookie("theme", body.theme, max_age=YEAR, samesite="lax")


@router.delete("/account/identities/{identity_id}", status_code=204)
def disconnect(identity_id: str, user: Anybody, parts: Parts) -> None:
    """Sign in by it no more. The last way to sign in stays."""
    with parts.store.write() as tx:
        identities.disconnect(tx, identity_id, user.id)
