"""The talk with one provider: where it is, to whom a browser is sent, and whom it sent back."""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any
from urllib.parse import quote_plus, urlencode

import httpx

from tutelage.errors import Denied, InvalidRequest, Sentence, TutelageError, Unavailable
from tutelage.server.oidc import tokens
from tutelage.server.oidc.attempt import Attempt
from tutelage.server.oidc.settings import ProviderSettings, is_private

log = logging.getLogger(__name__)

PATIENCE = httpx.Timeout(5)
ANSWER_SECONDS = 10.0
LONGEST_ANSWER = 1024 * 1024
FRESH_SECONDS = 3600.0
REST_SECONDS = 5.0
"""So long a provider that is out of order is left alone: people in a row do not wait for it one after the other."""
NAME_CLAIMS = ("preferred_username", "name", "nickname", "email")
BEGIN_AGAIN = "Begin again on the page where you sign in."
LATER = "Try again later, or sign in with a name and a password."


@dataclass(frozen=True, slots=True)
class Person:
    """Somebody as the provider knows them. `names` are what they may be called, the best first."""

    issuer: str
    subject: str
    names: tuple[str, ...]
    claims: Mapping[str, Any]


class Provider:
    """One provider. What it says about itself and its keys are fetched when somebody first signs in, and once an hour.

    Every request may raise Unavailable: the provider cannot be reached, or answers what nobody can understand.
    """

    def __init__(self, key: str, settings: ProviderSettings) -> None:
        self.key, self.settings = key, settings
        self._client: httpx.AsyncClient | None = None
        self._lock = asyncio.Lock()
        self._about: dict[str, Any] = {}
        self._keys = tokens.key_set({})
        self._fresh_until = self._rest_until = 0.0

    async def address(self, attempt: Attempt, redirect_uri: str) -> str:
        """Where the browser goes to sign in."""
        endpoint = self._endpoint(await self._discover(), "authorization_endpoint")
        query = {
            "response_type": "code",
            "client_id": self.settings.client_id,
            "redirect_uri": redirect_uri,
            "scope": " ".join(self.settings.scopes),
            "state": attempt.state,
            "nonce": attempt.nonce,
            "code_challenge": attempt.challenge,
            "code_challenge_method": "S256",
        }
        return f"{endpoint}{'&' if '?' in endpoint else '?'}{urlencode(query)}"

    async def person(self, attempt: Attempt, redirect_uri: str, answer: Mapping[str, str]) -> Person:
        """Who came back with this answer, whose state is the attempt's. Raises Denied, InvalidRequest."""
        about = await self._discover()
        self._check_issuer(about, answer.get("iss"))
        if "error" in answer:
            raise self._refusal(answer["error"])
        if not answer.get("code"):
            raise InvalidRequest(
                Sentence("{provider} sent no code.", provider=self.settings.name), hint=BEGIN_AGAIN
            )
        granted = await self._redeem(about, attempt, redirect_uri, answer["code"])
        token = granted.get("id_token")
        if not isinstance(token, str):
            raise self._odd("it sent no ID token")
        claims = await self._verified(about, token, attempt.nonce)
        claims = {**await self._more(about, granted, claims), **claims}
        if not self.settings.admits(claims):
            raise Denied(
                Sentence("This account of {provider} may not come in here.", provider=self.settings.name),
                hint="Sign in with another one, or ask an operator.",
            )
        names = [claims.get(name) for name in NAME_CLAIMS]
        plain = tuple(name.partition("@")[0] for name in names if isinstance(name, str))
        return Person(self.settings.issuer, claims["sub"], plain, claims)

    async def close(self) -> None:
        """Let go of the connections."""
        if self._client is not None:
            await self._client.aclose()

    async def _discover(self) -> dict[str, Any]:
        """What the provider says about itself (OpenID Connect Discovery 1.0)."""
        async with self._lock:
            if monotonic() < self._rest_until:
                raise self._away()
            if monotonic() >= self._fresh_until:
                try:
                    await self._learn()
                except Unavailable:
                    self._rest_until = monotonic() + REST_SECONDS
                    raise
            return self._about

    async def _learn(self) -> None:
        issuer = self.settings.issuer
        about = await self._get(f"{issuer.rstrip('/')}/.well-known/openid-configuration")
        if about.get("issuer") != issuer:
            raise self._odd("it calls itself by another issuer than the one in oidc.toml")
        self._keys = tokens.key_set(await self._get(self._endpoint(about, "jwks_uri")))
        self._about, self._fresh_until = about, monotonic() + FRESH_SECONDS

    async def _verified(self, about: dict[str, Any], token: str, nonce: str) -> dict[str, Any]:
        """The claims of an ID token. Keys are fetched again before one is refused: providers change them."""
        wanted = {"issuer": self.settings.issuer, "client_id": self.settings.client_id, "nonce": nonce}
        try:
            return tokens.verified(token, self._keys, **wanted)
        except tokens.InvalidToken:
            self._keys = tokens.key_set(await self._get(self._endpoint(about, "jwks_uri")))
        try:
            return tokens.verified(token, self._keys, **wanted)
        except tokens.InvalidToken as error:
            raise self._odd(str(error)) from error

    async def _redeem(
        self, about: dict[str, Any], attempt: Attempt, redirect_uri: str, code: str
    ) -> dict[str, Any]:
        """The tokens for a code (RFC 6749, section 4.1.3)."""
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": redirect_uri,
            "code_verifier": attempt.verifier,
        }
        secret = self.settings.client_secret
        hidden = "" if secret is None else secret.get_secret_value()
        ways = about.get("token_endpoint_auth_methods_supported")
        credentials = None
        if hidden and (not isinstance(ways, list) or "client_secret_basic" in ways):
            credentials = httpx.BasicAuth(quote_plus(self.settings.client_id), quote_plus(hidden))
        else:
            form |= {"client_id": self.settings.client_id} | ({"client_secret": hidden} if hidden else {})
        endpoint = self._endpoint(about, "token_endpoint")
        status, granted = await self._ask("POST", endpoint, data=form, auth=credentials)
        if status == 200:
            return granted
        if granted.get("error") == "invalid_grant":
            message = "This sign-in has been used already, or took too long."
            raise InvalidRequest(message, hint=BEGIN_AGAIN)
        raise self._odd(f"it gave no token: {status} {_code(granted.get('error'))}")

    async def _more(
        self, about: dict[str, Any], granted: dict[str, Any], claims: dict[str, Any]
    ) -> dict[str, Any]:
        """What an ID token lacks and the provider tells who asks (OpenID Connect Core 1.0, section 5.3)."""
        wanted = {self.settings.role_claim, *self.settings.required} - {""}
        token, place = granted.get("access_token"), about.get("userinfo_endpoint")
        whole = wanted <= claims.keys() and any(claims.get(name) for name in NAME_CLAIMS)
        if whole or not isinstance(token, str) or not token.isascii() or place is None:
            return {}
        endpoint = self._endpoint(about, "userinfo_endpoint")
        found = await self._get(endpoint, headers={"authorization": f"Bearer {token}"})
        if found.get("sub") != claims["sub"]:
            raise self._odd("it told about somebody else")
        return found

    def _check_issuer(self, about: dict[str, Any], issuer: str | None) -> None:
        """That the answer is this provider's and not another's (RFC 9207)."""
        told = about.get("authorization_response_iss_parameter_supported") is True
        if issuer != self.settings.issuer and (told or issuer is not None):
            raise InvalidRequest("This answer came from another provider.", hint=BEGIN_AGAIN)

    def _refusal(self, error: str) -> TutelageError:
        if error == "access_denied":
            return Denied(
                Sentence("{provider} did not let you in, or you turned back.", provider=self.settings.name),
                hint=BEGIN_AGAIN,
            )
        return self._odd(f"it refused: {_code(error)}")

    def _endpoint(self, about: dict[str, Any], name: str) -> str:
        found = about.get(name)
        if not isinstance(found, str) or not is_private(found):
            raise self._odd(f"it says no usable {name}")
        return found

    async def _get(self, url: str, headers: dict[str, str] | None = None) -> dict[str, Any]:
        status, found = await self._ask("GET", url, headers=headers or {})
        if status != 200:
            raise self._odd(f"it answered {status}")
        return found

    async def _ask(self, method: str, url: str, **request: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer; redirects are not followed."""
        self._client = self._client or httpx.AsyncClient(
            timeout=PATIENCE, headers={"accept": "application/json"}
        )
        body = b""
        try:
            async with asyncio.timeout(ANSWER_SECONDS), self._client.stream(method, url, **request) as answer:
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > LONGEST_ANSWER:
                        raise self._odd("it does not stop answering")
        except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
            log.warning("sign-in by %s: it cannot be reached: %s", self.key, type(error).__name__)
            raise self._away() from error
        try:
            found = json.loads(body)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise self._odd(f"it answered {answer.status_code} without a JSON object")
        return answer.status_code, found

    def _away(self) -> Unavailable:
        return Unavailable(Sentence("{provider} cannot be reached.", provider=self.settings.name), hint=LATER)

    def _odd(self, why: str) -> Unavailable:
        """The error of a provider that does not do its part; why is for the operator's log."""
        log.warning("sign-in by %s: %s", self.key, why)
        return Unavailable(
            Sentence("Signing in by {provider} does not work at present.", provider=self.settings.name),
            hint=LATER,
        )


def _code(error: Any) -> str:
    """An OAuth error code as it may stand in a log."""
    return error if isinstance(error, str) and re.fullmatch(r"[a-z_]{1,60}", error) else "for no known reason"
