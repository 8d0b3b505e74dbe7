"""The order of the whole suite, and a provider to sign in by."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote_plus, urlencode

import pytest
import uvicorn
from joserfc import jwt
from joserfc.jwk import ECKey, Key
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

PAGES = Path(__file__).with_name("pages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser run last: Playwright keeps an event loop in the main thread until the session ends."""
    items.sort(key=lambda item: item.path.is_relative_to(PAGES))


@dataclass
class FakeProvider:
    """An OpenID Connect provider where one person is signed in. It keeps to the book unless told otherwise.

    `claims` are the person's; in the ID token, or with `thin` only where the access token leads. `token` replaces what
    the ID token says, `answers` a whole response by path, `sent` what comes back to the browser.
    """

    client_id: str = "tutelage"
    secret: str = "s:cr+t"
    url: str = ""
    claims: dict[str, Any] = field(
        default_factory=lambda: {"sub": "248289761001", "preferred_username": "jane"}
    )
    thin: bool = False
    token: dict[str, Any] = field(default_factory=dict)
    alg: str = "ES256"
    about: dict[str, Any] = field(default_factory=dict)
    answers: dict[str, Response] = field(default_factory=dict)
    sent: dict[str, str | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    codes: dict[str, dict[str, str]] = field(default_factory=dict)
    published: Key | None = None

    def __post_init__(self) -> None:
        self.key: Any = ECKey.generate_key("P-256", {"kid": "first", "use": "sig"})

    def settings(self, **more: Any) -> dict[str, Any]:
        """Our side of the agreement, as in `oidc.toml`."""
        agreed = {"issuer": self.url, "client_id": self.client_id, "client_secret": self.secret}
        return {"name": "Example", **agreed, "newcomers": True, **more}

    def app(self) -> Starlette:
        paths = {
            "/.well-known/openid-configuration": self._discovery,
            "/keys": self._keys,
            "/authorize": self._authorize,
            "/token": self._token,
            "/userinfo": self._userinfo,
        }
        return Starlette(
            routes=[
                Route(path, self._noted(answer), methods=["GET", "POST"]) for path, answer in paths.items()
            ]
        )

    def _noted(self, answer: Any) -> Any:
        async def respond(request: Request) -> Response:
            self.asked.append(request.url.path)
            planned = self.answers.get(request.url.path)
            return await answer(request) if planned is None else planned

        return respond

    async def _discovery(self, request: Request) -> Response:
        about = {
            "issuer": self.url,
            "authorization_endpoint": f"{self.url}/authorize",
            "token_endpoint": f"{self.url}/token",
            "jwks_uri": f"{self.url}/keys",
            "userinfo_endpoint": f"{self.url}/userinfo",
        }
        return JSONResponse(about | self.about)

    async def _keys(self, request: Request) -> Response:
        strange = {"kty": "AKP", "alg": "ML-DSA-44", "pub": "AA"}
        published = (self.published or self.key).as_dict(private=False)
        return JSONResponse({"keys": [strange, {"kty": "RSA", "n": "!", "e": 3}, published]})

    async def _authorize(self, request: Request) -> Response:
        query = dict(request.query_params)
        assert (query["client_id"], query["response_type"]) == (self.client_id, "code")
        assert (query["code_challenge_method"], query["scope"].split()[0]) == ("S256", "openid")
        code = secrets.token_urlsafe(8)
        self.codes[code] = query
        sent = {"code": code, "state": query["state"], **self.sent}
        back = urlencode({name: value for name, value in sent.items() if value is not None})
        return RedirectResponse(f"{query['redirect_uri']}?{back}", status_code=303)

    async def _token(self, request: Request) -> Response:
        form = {name: values[0] for name, values in parse_qs((await request.body()).decode()).items()}
        scheme, _, basic = request.headers.get("authorization", "").partition(" ")
        pair = base64.b64decode(basic).decode().split(":") if scheme == "Basic" else []
        client = [unquote_plus(part) for part in pair] or [
            form.get("client_id"),
            form.get("client_secret", ""),
        ]
        if client != [self.client_id, self.secret]:
            return JSONResponse({"error": "invalid_client"}, status_code=401)
        query = self.codes.pop(form["code"], None)
        proof = hashlib.sha256(form["code_verifier"].encode()).digest()
        proven = query and query["code_challenge"] == _plain(proof)
        if query is None or not proven or form["redirect_uri"] != query["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, status_code=400)
        now = int(time.time())
        claims = {
            "iss": self.url,
            "aud": self.client_id,
            "exp": now + 60,
            "iat": now,
            "nonce": query["nonce"],
        }
        claims |= {"sub": self.claims["sub"]} if self.thin else self.claims
        claims = {name: value for name, value in {**claims, **self.token}.items() if value is not None}
        return JSONResponse(
            {"access_token": "opaque", "token_type": "Bearer", "id_token": self._signed(claims)}
        )

    def _signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.alg, "kid": "first" if isinstance(self.key, bytes) else self.key.kid}
        if self.alg not in ("none", "HS256"):
            return jwt.encode(header, claims, self.key, algorithms=[self.alg])
        body = f"{_plain(json.dumps(header).encode())}.{_plain(json.dumps(claims).encode())}"
        mac = hmac.digest(self.key, body.encode(), "sha256") if self.alg == "HS256" else b""
        return f"{body}.{_plain(mac)}"

    async def _userinfo(self, request: Request) -> Response:
        assert request.headers["authorization"] == "Bearer opaque"
        return JSONResponse(self.claims)


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


@pytest.fixture
def fake_provider() -> Iterator[FakeProvider]:
    """A provider that listens."""
    provider = FakeProvider()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        provider.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        server = uvicorn.Server(uvicorn.Config(provider.app(), log_level="error"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.01)
        yield provider
        server.should_exit = True
        thread.join(10)
