"""What happens to every request before a handler sees it, and to every response after. Pure ASGI."""

from __future__ import annotations

import asyncio
import re
import secrets
from time import monotonic, perf_counter
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.errors import Sentence
from tutelage.server.errors import INTERNAL, Failure, answer, log_failure
from tutelage.server.permissions import SESSION_DAYS, cookie_name

LONGEST_BODY = 2 * 1024 * 1024
BODY_SECONDS = 30.0
TOO_LARGE = Failure(
    413, Sentence("the body is over {size} MB", size=LONGEST_BODY // 1024 // 1024), code="request_too_large"
)
TOO_SLOW = Failure(
    408,
    Sentence("the body did not come within {seconds} s", seconds=format(BODY_SECONDS, ".0f")),
    code="request_timeout",
)
SANE_ID = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
OPENAI_VERSION = "2020-10-01"
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
SECURITY_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}


class RequestId:
    """Names each request, times those to /v1, and turns what nobody expected into a plain 500.

    A client may bring a name of its own, to find the request in the server's log.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        started, answered = perf_counter(), False
        brought = Headers(scope=scope).get("x-request-id", "")
        request_id = brought if SANE_ID.fullmatch(brought) else f"req_{secrets.token_hex(12)}"
        scope.setdefault("state", {})["request_id"] = request_id

        async def named(message: Message) -> None:
            nonlocal answered
            if message["type"] == "http.response.start":
                answered = True
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = request_id
                if scope["path"].startswith("/v1/"):
                    headers["openai-processing-ms"] = str(round((perf_counter() - started) * 1000))
                    headers["openai-version"] = OPENAI_VERSION
            await send(message)

        try:
            await self.app(scope, receive, named)
        except Exception as error:
            log_failure(error, request_id=request_id)
            if not answered:
                await _refuse(INTERNAL, scope, receive, named)


class HeadRequests:
    """Answers HEAD as GET would be answered, without the body: monitors and programs that check links ask so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def head(message: Message) -> None:
            if message["type"] == "http.response.start":
                await send(message)
                await send({"type": "http.response.body"})

        if scope["type"] == "http" and scope["method"] == "HEAD":
            await self.app({**scope, "method": "GET"}, receive, head)
        else:
            await self.app(scope, receive, send)


class SecurityHeaders:
    """Sets the headers that keep browsers from helping an attacker; nothing is cached unless it says so."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def secured(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in SECURITY_HEADERS.items():
                    headers.setdefault(name, value)
                headers.setdefault("cache-control", "no-store")
            await send(message)

        await self.app(scope, receive, secured)


class HostCheck:
    """Refuses requests under a strange name: a web page elsewhere that points its own name at this machine."""

    def __init__(self, app: ASGIApp, hosts: frozenset[str]) -> None:
        self.app = app
        self.hosts = hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self.hosts:
            host = _host_name(Headers(scope=scope).get("host", ""))
            if host not in self.hosts:
                hint = "whoever runs it adds it with `tutelage serve --public-name NAME`"
                said = "this server does not answer to that host name"
                failure = Failure(421, said, code="wrong_host", hint=hint)
                await _refuse(failure, scope, receive, send)
                return
        await self.app(scope, receive, send)


class OriginCheck:
    """Refuses what another site makes a browser send: unsafe methods whose origin is not ours.

    Programs send neither header; /v1 takes no cookies, so there is nothing to protect.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        unsafe = scope["type"] == "http" and scope["method"] not in SAFE_METHODS
        if unsafe and not scope["path"].startswith("/v1/") and _foreign(Headers(scope=scope)):
            failure = Failure(403, "this request came from another site", code="cross_site")
            await _refuse(failure, scope, receive, send)
            return
        await self.app(scope, receive, send)


class BodyLimit:
    """Refuses bodies over `LONGEST_BODY`, whether they say how long they are or not, and those that dawdle."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        announced = Headers(scope=scope).get("content-length", "0")
        if not announced.isdecimal() or int(announced[:20]) > LONGEST_BODY:
            return await _refuse(TOO_LARGE, scope, receive, send)
        answered = False

        async def noted(message: Message) -> None:
            nonlocal answered
            answered = True
            await send(message)

        try:
            await self.app(scope, _limited(receive), noted)
        except _RefusedBodyError as error:
            if not answered:
                await _refuse(error.failure, scope, receive, send)


async def _refuse(failure: Failure, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with a failure, in the asker's language."""
    await answer(Request(scope), failure)(scope, receive, send)


def _limited(receive: Receive) -> Receive:
    """Like `receive`, but counts what comes and looks at the clock until the body is complete."""
    read, complete, deadline = 0, False, monotonic() + BODY_SECONDS

    async def limited() -> Message:
        nonlocal read, complete
        if complete:
            return await receive()
        try:
            async with asyncio.timeout(deadline - monotonic()):
                message = await receive()
        except TimeoutError:
            raise _RefusedBodyError(TOO_SLOW) from None
        read += len(message.get("body", b""))
        complete = not message.get("more_body", False)
        if read > LONGEST_BODY:
            raise _RefusedBodyError(TOO_LARGE)
        return message

    return limited


class SessionCookie:
    """Sets or takes away the session cookie as `permissions.set_session` asked."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_cookie(message: Message) -> None:
            state = scope.get("state", {})
            if message["type"] == "http.response.start" and "session" in state:
                connection = HTTPConnection(scope)
                MutableHeaders(scope=message).append("set-cookie", _cookie(connection, state["session"]))
            await send(message)

        await self.app(scope, receive, with_cookie)


class _RefusedBodyError(BaseException):
    """Ends the reading of a body. Not an Exception: code that answers 400 to any error must not see it."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.message)
        self.failure = failure


def _cookie(connection: HTTPConnection, token: str | None) -> str:
    age = 0 if token is None else SESSION_DAYS * 24 * 60 * 60
    secure = "; Secure" if connection.url.scheme == "https" else ""
    return f"{cookie_name(connection)}={token or ''}; Path=/; Max-Age={age}; HttpOnly; SameSite=Lax{secure}"


def _foreign(headers: Headers) -> bool:
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = headers.get("origin")
    return origin is not None and urlsplit(origin).netloc.lower() != headers.get("host", "").lower()


def _host_name(host: str) -> str:
    """The name in a Host header, without the port."""
    name = host.lower()
    return name[: name.index("]") + 1] if name.startswith("[") and "]" in name else name.partition(":")[0]
