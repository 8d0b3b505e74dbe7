"""One try to sign in elsewhere, from the click to the way back. The browser keeps it in a cookie, nobody else.

State, nonce and PKCE verifier are derived from one secret in the cookie, so only the browser that began a try can end
it, and the server has nothing to remember.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from dataclasses import astuple, dataclass

LIFE_SECONDS = 600
LONGEST_COOKIE = 3000


@dataclass(frozen=True, slots=True)
class Attempt:
    """`next` is the path to go to afterwards, `invite` an invitation's token, `connect` the id of the user to whose
    account the identity is to be added."""

    secret: str
    provider: str
    next: str = "/"
    invite: str = ""
    connect: str = ""

    @classmethod
    def begin(cls, provider: str, *, next: str = "/", invite: str = "", connect: str = "") -> Attempt:
        """A new try. A path that is too long for a cookie is forgotten."""
        return cls(
            secrets.token_urlsafe(32), provider, next if len(next) <= 500 else "/", invite[:200], connect
        )

    @property
    def state(self) -> str:
        """What the provider hands back to the browser."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """What the provider puts into the ID token."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """PKCE: proves that who redeems the code is who asked for it (RFC 7636, section 4.1)."""
        return self._derived("verifier")

    @property
    def challenge(self) -> str:
        """PKCE: the S256 of the verifier."""
        return _plain(hashlib.sha256(self.verifier.encode()).digest())

    def belongs_to(self, state: str) -> bool:
        """Whether an answer with this state is one to this try."""
        return hmac.compare_digest(self.state.encode(), state.encode("utf-8", "replace"))

    def cookie(self) -> str:
        """The try as a cookie's value."""
        return _plain(json.dumps(astuple(self)).encode())

    @classmethod
    def read(cls, cookie: str) -> Attempt | None:
        """The try in a cookie; None for anything else."""
        if len(cookie) > LONGEST_COOKIE:
            return None
        try:
            found = json.loads(base64.urlsafe_b64decode(cookie + "=" * (-len(cookie) % 4)))
        except (ValueError, binascii.Error, RecursionError):
            return None
        whole = isinstance(found, list) and len(found) == 5 and all(isinstance(part, str) for part in found)
        return cls(*found) if whole and found[0] else None

    def _derived(self, purpose: str) -> str:
        return _plain(hmac.digest(self.secret.encode("utf-8", "replace"), purpose.encode(), "sha256"))


def _plain(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
