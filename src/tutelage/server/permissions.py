"""Who is asking, and whether they may. Sessions for people, keys for programs.

Pages and `/api` use the session cookie: `current_user`, `require("trainer")`. `/v1` uses keys: `api_key("chat")`.
Roles rise: guest < user < trainer < operator.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Literal

from sqlalchemy.orm import Session
from starlette.requests import HTTPConnection, Request

from tutelage.errors import Denied, Sentence, Unauthenticated
from tutelage.server.errors import InvalidKey
from tutelage.server.services import Services, services
from tutelage.server.transactions import read, write
from tutelage.store import accounts, quota
from tutelage.store.tables import ApiKey, User
from tutelage.store.usage import chat_settings

Role = Literal["guest", "user", "trainer", "operator"]
RANKS: dict[str, int] = {"guest": 0, "user": 1, "trainer": 2, "operator": 3}
NAMES = {
    "guest": Sentence("guest"),
    "user": Sentence("user"),
    "trainer": Sentence("trainer"),
    "operator": Sentence("operator"),
}
SESSION_DAYS = 365
"""A guest who loses the session has lost their chats, so it lasts; sessions can be ended one by one."""
Scope = Literal["chat", "moderations", "rewards"]
OTHER_HEADERS = ("api-key", "x-api-key", "openai-api-key", "proxy-authorization", "x-goog-api-key")
"""Where programs for other servers put their keys."""


async def optional_user(request: Request) -> User | None:
    """The signed-in user or guest, or None. Makes nobody. Errors are told in the language of `request.state.reader`."""
    token = session_token(request)
    if token is None:
        return None
    user = await read(services(request).store, lambda tx: accounts.session_user(tx, token))
    request.state.reader = user
    return user


async def current_user(request: Request) -> User:
    """The user of this session; where guests may come in, a new guest with a new session. Whoever only looks is a guest
    of whom nothing is kept: programs that follow links would fill the store.

    Where guests may not come in, those of before may still read, take along and delete what they have. Raises
    Unauthenticated there for everybody else, Denied when they want more.
    """
    user = await optional_user(request)
    parts = services(request)
    if user is not None:
        wants_more = request.method not in ("GET", "DELETE")
        if user.role == "guest" and wants_more and not await _guests_may_come_in(parts):
            hint = "sign in, or ask an operator for an invitation"
            raise Denied("guests may not chat here any more", hint=hint)
        return user
    if not parts.access.guests:
        raise Unauthenticated("nobody is signed in", hint="sign in first")

    if request.method == "GET":
        return await read(parts.store, _passing_guest)
    guest, token = await write(parts.store, lambda tx: _new_guest(tx, agent_of(request)))
    set_session(request, token)
    return guest


async def writing_user(request: Request) -> User:
    """Like `current_user`, for whatever keeps more text. Raises StorageFull for a guest who has no room left."""
    user = await current_user(request)
    if user.role == "guest":
        await read(services(request).store, lambda tx: quota.check_room(tx, user))
    return user


def require(role: Role) -> Callable[[Request], Awaitable[User]]:
    """A dependency that gives the user when they have this role or a higher one.

    Raises Unauthenticated when nobody is signed in, Denied when the role is too low.
    """

    async def check(request: Request) -> User:
        user = await optional_user(request)
        if user is None:
            raise Unauthenticated("nobody is signed in", hint="sign in first")
        demand(user, role)
        return user

    return check


def demand(user: User, role: Role) -> None:
    """Raise Denied unless the user has this role or a higher one."""
    if not allows(user, role):
        raise Denied(Sentence("this needs the role {role}", role=NAMES[role]), hint="ask an operator for it")


def allows(user: User | None, role: Role) -> bool:
    """Whether the user has this role or a higher one."""
    return user is not None and RANKS[user.role] >= RANKS[role]


def api_key(scope: Scope) -> Callable[[Request], Awaitable[ApiKey]]:
    """A dependency that gives the key of `Authorization: Bearer tut-…` when it has the scope, and counts the request.

    What the key may still use is in `request.state.allowance`. Raises Unauthenticated for a missing, malformed,
    unknown or revoked key, Denied without the scope, RateLimited.
    """

    async def check(request: Request) -> ApiKey:
        parts = services(request)
        parts.limits.arrive(address_of(request))
        secret = _bearer(request)
        key = await read(parts.store, lambda tx: accounts.key_by_secret(tx, secret))
        if key is None:
            raise InvalidKey("this API key is not valid", hint="make one: tutelage keys create --name NAME")
        if scope not in key.scopes:
            raise Denied(
                Sentence("this API key lacks the scope {scope}", scope=scope), hint="make a key that has it"
            )
        request.state.allowance = parts.limits.admit(key.id)
        parts.limits.begin(request.state.allowance)
        return key

    return check


def _bearer(request: Request) -> str:
    """The one place where a key is read from a request: one header, one scheme."""
    sent = request.headers.getlist("authorization")
    scheme, _, secret = sent[0].partition(" ") if len(sent) == 1 else ("", "", "")
    if scheme.lower() == "bearer" and secret.strip():
        return secret.strip()
    others = [name for name in OTHER_HEADERS if name in request.headers]
    told = f"keys are not read from {others[0]}" if others and not sent else "no API key was sent"
    raise InvalidKey(told, hint="send one header Authorization: Bearer tut-…")


def session_token(connection: HTTPConnection) -> str | None:
    """The session token that the browser sent."""
    return connection.cookies.get(cookie_name(connection)) or None


def set_session(request: Request, token: str | None) -> None:
    """Have the response set the session cookie; None takes it away."""
    request.state.session = token


def cookie_name(connection: HTTPConnection) -> str:
    """`__Host-tutelage` over https, where browsers then refuse it from anywhere else; `tutelage` over http."""
    return "__Host-tutelage" if connection.url.scheme == "https" else "tutelage"


def address_of(connection: HTTPConnection) -> str:
    """Where a request comes from, as far as the server can tell; empty where it cannot."""
    return connection.client.host if connection.client else ""


def agent_of(connection: HTTPConnection) -> str:
    """What the browser calls itself, for the list of a user's sessions."""
    return connection.headers.get("user-agent", "")


async def _guests_may_come_in(parts: Services) -> bool:
    return parts.access.guests and (await read(parts.store, chat_settings)).guests


def _passing_guest(tx: Session) -> User:
    _check_guests(tx)
    return accounts.passing_guest()


def _new_guest(tx: Session, agent: str) -> tuple[User, str]:
    _check_guests(tx)
    guest = accounts.create_guest(tx)
    return guest, accounts.open_session(tx, guest.id, days=SESSION_DAYS, agent=agent)


def _check_guests(tx: Session) -> None:
    if not chat_settings(tx).guests:
        raise Unauthenticated("nobody is signed in", hint="sign in first")
