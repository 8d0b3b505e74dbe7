"""Passwords and attempts to guess them."""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic

import argon2
from anyio.to_thread import run_sync

from tutelage.errors import InvalidRequest, RateLimited, Sentence

SHORTEST, LONGEST = 10, 1024
_hasher = argon2.PasswordHasher()
_two_at_once = threading.BoundedSemaphore(2)  # each takes 64 MB
# A hash of nothing anybody knows: checking an unknown user takes as long as checking a known one.
_NOBODY = "$argon2id$v=19$m=65536,t=3,p=4$Bx4GBNZSzi6MCiDEtZqDLA$8wqD0WaG9x2oIVDJhrfh3QBRsed54ughb1bXuD9ZQtc"


def check_new(password: str) -> None:
    """Raise InvalidRequest for a password that is too short to be one, or absurdly long."""
    if not SHORTEST <= len(password) <= LONGEST:
        raise InvalidRequest(
            Sentence("a password has {least} to {most} characters", least=SHORTEST, most=LONGEST),
            param="password",
            hint="a few random words make a good one",
        )


async def hash_password(password: str) -> str:
    """Argon2id, off the event loop."""

    def make() -> str:
        with _two_at_once:
            return _hasher.hash(_encoded(password))

    return await run_sync(make)


async def matches(password: str, password_hash: str | None) -> bool:
    """Whether this is the password. A user without one (or no user at all) costs the same time."""

    def verify() -> bool:
        try:
            with _two_at_once:
                return (
                    _hasher.verify(password_hash or _NOBODY, _encoded(password)) and password_hash is not None
                )
        except argon2.exceptions.VerificationError:
            return False

    return await run_sync(verify)


class SignInLimits:
    """Counts failures of the last quarter of an hour, for each account and for each address."""

    WINDOW_SECONDS = 900.0
    PER_ACCOUNT = 10
    PER_ADDRESS = 50

    def __init__(self) -> None:
        self._failures: dict[tuple[str, str], deque[float]] = {}

    def check(self, name: str, address: str) -> None:
        """Raise RateLimited after too many failures for this account or from this address."""
        self._forget()
        for key, most in self._limits(name, address):
            failures = self._failures.get(key, deque())
            if len(failures) >= most:
                wait = failures[0] + self.WINDOW_SECONDS - monotonic()
                raise RateLimited(
                    "too many failed attempts to sign in", retry_after=wait, hint="wait a while"
                )

    def failed(self, name: str, address: str) -> None:
        """Count a failure."""
        for key, most in self._limits(name, address):
            self._failures.setdefault(key, deque(maxlen=most)).append(monotonic())

    def succeeded(self, name: str) -> None:
        """Forget an account's failures."""
        self._failures.pop(("account", name.casefold()), None)

    def _limits(self, name: str, address: str) -> tuple[tuple[tuple[str, str], int], ...]:
        return (("account", name.casefold()), self.PER_ACCOUNT), (("address", address), self.PER_ADDRESS)

    def _forget(self) -> None:
        horizon = monotonic() - self.WINDOW_SECONDS
        for key in [key for key, failures in self._failures.items() if failures[-1] < horizon]:
            del self._failures[key]
        for failures in self._failures.values():
            while failures[0] < horizon:
                failures.popleft()


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "replace")
