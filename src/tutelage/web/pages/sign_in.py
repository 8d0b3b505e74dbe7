"""Signing in here or elsewhere, and becoming the operator.

GET /sign-in                      ?next=/path
GET /sign-in/{provider}           ?next=/path&invite=token&connect=1: off to the provider
GET /sign-in/{provider}/callback  where the provider sends the browser back to
GET /operator-link/{token}        shows a form; only sending it uses the link up (a link preview must not)
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastapi import APIRouter, Request
from fastapi.responses import RedirectResponse, Response
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Denied, InvalidRequest, NotFound
from tutelage.server.accounts import begin_session
from tutelage.server.oidc.attempt import LIFE_SECONDS, Attempt
from tutelage.server.passwords import SHORTEST
from tutelage.server.permissions import address_of, optional_user
from tutelage.server.services import Services
from tutelage.store import accounts, audit, identities
from tutelage.store.tables import User
from tutelage.web.pages.parts import Parts, Templates

if TYPE_CHECKING:
    from tutelage.server.oidc.provider import Person, Provider

router = APIRouter(include_in_schema=False)


@router.get("/sign-in")
def sign_in(request: Request, pages: Templates, parts: Parts, next: str = "/") -> Response:
    """The sign-in form. Works for everybody, so it makes no guest."""
    return pages.bare(request, "sign_in.html", next=local_path(next), providers=parts.providers)


@router.get("/sign-in/{provider}")
async def begin(
    request: Request, provider: str, parts: Parts, next: str = "/", invite: str = "", connect: bool = False
) -> Response:
    """Send the browser to the provider. Nobody else's page can begin this: it gets the sign-in form."""
    found = _provider(parts, provider)
    if request.headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return RedirectResponse("/sign-in", status_code=303)
    user = await optional_user(request)
    if connect and (user is None or user.name is None):
        raise InvalidRequest("Only who has an account can connect it.", hint="Sign in first.")
    to = user.id if connect and user is not None else ""
    attempt = Attempt.begin(provider, next=local_path(next), invite=invite, connect=to)
    address = await found.address(attempt, _callback(request, provider))
    response = RedirectResponse(address, status_code=303)
    _keep(request, response, attempt)
    return response


@router.get("/sign-in/{provider}/callback")
async def come_back(request: Request, provider: str, parts: Parts) -> Response:
    """Sign in whom the provider sent back, if it was this browser that began."""
    found = _provider(parts, provider)
    attempt = Attempt.read(request.cookies.get(_cookie_name(request), ""))
    answer = request.query_params
    if attempt is None or attempt.provider != provider or not attempt.belongs_to(answer.get("state", "")):
        hint = "Begin again on the page where you sign in; if this comes back, let the browser keep cookies."
        raise InvalidRequest("This browser has not begun to sign in, or took too long.", hint=hint)
    limits, address = parts.sign_in_limits, address_of(request)
    limits.check(f"{provider} {address}", address)
    try:
        person = await found.person(attempt, _callback(request, provider), answer)
    except (Denied, InvalidRequest):
        limits.failed(f"{provider} {address}", address)
        raise
    present = await optional_user(request)
    days = found.settings.session_days
    await begin_session(request, lambda tx: _signed_in(tx, found, attempt, person, present), days=days)
    response = RedirectResponse(local_path(attempt.next), status_code=303)
    _keep(request, response, None)
    return response


@router.get("/operator-link/{token}")
async def operator_link(request: Request, token: str, pages: Templates) -> Response:
    """Where the link printed by `tutelage serve` leads. Looking at it changes nothing."""
    user = await optional_user(request)
    return pages.bare(request, "operator_link.html", user=user, token=token, shortest_password=SHORTEST)


def local_path(path: str) -> str:
    """The path when it stays on this server, else the home page."""
    safe = path.startswith("/") and not path.startswith(("//", "/\\"))
    return path if safe and path.isprintable() else "/"


def _signed_in(
    tx: Session, provider: Provider, attempt: Attempt, person: Person, present: User | None
) -> User:
    """The user this person is from now on, with the role that the provider gives them."""
    settings = provider.settings
    if attempt.connect:
        if present is None or present.id != attempt.connect:
            raise Conflict("You are not signed in as who began this.", hint="Sign in and connect again.")
        identities.connect(tx, person.issuer, person.subject, present.id)
        return accounts.get_user(tx, present.id)
    user = identities.admit(
        tx,
        person.issuer,
        person.subject,
        names=person.names,
        newcomers=settings.newcomers,
        invite=attempt.invite,
        guest_id=present.id if present is not None and present.name is None else None,
    )
    role = settings.role(person.claims)
    if role is not None and role != user.role and not _is_last_operator(tx, user):
        accounts.set_role(tx, user.id, role)
        audit.record(tx, user.id, "change_role", user.id, detail={"role": role, "by": provider.key})
    return user


def _is_last_operator(tx: Session, user: User) -> bool:
    return user.role == "operator" and accounts.count_users(tx, roles=("operator",)) == 1


def _provider(parts: Services, key: str) -> Provider:
    found = parts.providers.get(key)
    if found is None:
        raise NotFound("There is no such way to sign in.")
    return found


def _callback(request: Request, provider: str) -> str:
    """The address that the provider sends the browser back to; it has to be registered there."""
    return f"{request.url.scheme}://{request.url.netloc}/sign-in/{provider}/callback"


def _cookie_name(request: Request) -> str:
    return "__Host-tutelage-oidc" if request.url.scheme == "https" else "tutelage-oidc"


def _keep(request: Request, response: Response, attempt: Attempt | None) -> None:
    """Have the browser keep its try, or forget it."""
    response.set_cookie(
        _cookie_name(request),
        "" if attempt is None else attempt.cookie(),
        max_age=0 if attempt is None else LIFE_SECONDS,
        httponly=True,
        samesite="lax",
        secure=request.url.scheme == "https",
    )
