"""Passwords and attempts to guess them."""

from __future__ import annotations

import asyncio
import secrets
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from time import monotonic
from typing import TypeVar

import argon2

from tutelage.errors import InvalidRequest, RateLimited, Sentence
from tutelage.server.limits import network

T = TypeVar("T")

SHORTEST, LONGEST = 10, 1024
AT_ONCE = 2  # each takes 64 MB
_hasher = argon2.PasswordHasher()
_threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="passwords")
"""Threads of their own: however many passwords wait to be looked at, none of those that read the store waits too."""
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


def make_password() -> str:
    """One to hand over: 16 letters, digits and signs, of 96 bits of chance."""
    return secrets.token_urlsafe(12)


async def hash_password(password: str) -> str:
    """Argon2id, off the event loop."""
    return await _aside(lambda: _hasher.hash(_encoded(password)))


async def matches(password: str, password_hash: str | None) -> bool:
    """Whether this is the password. A user without one (or no user at all) costs the same time."""

    def verify() -> bool:
        try:
            return _hasher.verify(password_hash or _NOBODY, _encoded(password)) and password_hash is not None
        except argon2.exceptions.VerificationError:
            return False

    return await _aside(verify)


async def _aside(work: Callable[[], T]) -> T:
    return await asyncio.get_running_loop().run_in_executor(_threads, work)


class SignInLimits:
    """Counts failures of the last quarter of an hour, for each account and for each address (`limits.network`).

    An account goes by one name, however it was typed: `accounts.name_key`.
    """

    WINDOW_SECONDS = 900.0
    PER_ACCOUNT = 10
    PER_ADDRESS = 50
    KNOWN_SECONDS = 30 * 86_400.0
    """So long, an address from which somebody signed in is theirs: nobody keeps them out by guessing elsewhere."""
    WAITING = 30
    """So many passwords of one address at most wait to be looked at: others wait behind them."""

    def __init__(self) -> None:
        self._waiting = Counter[str]()
        self._known: dict[tuple[str, str], float] = {}
        self._failures: dict[tuple[str, str], deque[float]] = {}
        self._turn = asyncio.Semaphore(AT_ONCE)

    async def matches(self, name: str, address: str, password: str, password_hash: str | None) -> bool:
        """Whether this is the account's password, and counts it when it is not. Raises RateLimited as `check`, `hash`.

        Guesses that are sent all at once wait for their turn, and it is then that the limits are looked at.
        """
        with self._in_line(address):
            async with self._turn:
                self.check(name, address)
                right = await matches(password, password_hash)
                if right:
                    self.succeeded(name, address)
                else:
                    self.failed(name, address)
                return right

    async def hash(self, address: str, password: str) -> str:
        """What is kept of a new password. Raises RateLimited when too many from this address are looked at already."""
        with self._in_line(address):
            return await hash_password(password)

    def check(self, name: str, address: str) -> None:
        """Raise RateLimited after too many failures from this address, or for this account from strange ones."""
        self._forget()
        of_account, of_address = self._limits(name, address)
        at_home = (name, network(address)) in self._known
        for key, most in (of_address,) if at_home else (of_account, of_address):
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

    def succeeded(self, name: str, address: str) -> None:
        """Forget an account's failures, and know its address."""
        self._failures.pop(("account", name), None)
        self._known[name, network(address)] = monotonic()

    @contextmanager
    def _in_line(self, address: str) -> Iterator[None]:
        place = network(address)
        if self._waiting[place] >= self.WAITING:
            raise RateLimited("too many passwords at once", retry_after=5, hint="try again in a moment")
        self._waiting[place] += 1
        try:
            yield
        finally:
            self._waiting -= Counter([place])  # and nothing is kept of who does not wait

    def _limits(
        self, name: str, address: str
    ) -> tuple[tuple[tuple[str, str], int], tuple[tuple[str, str], int]]:
        return (
            (("account", name), self.PER_ACCOUNT),
            (("address", network(address)), self.PER_ADDRESS),
        )

    def _forget(self) -> None:
        horizon = monotonic() - self.WINDOW_SECONDS
        for key in [key for key, failures in self._failures.items() if failures[-1] < horizon]:
            del self._failures[key]
        for failures in self._failures.values():
            while failures[0] < horizon:
                failures.popleft()
        long_ago = monotonic() - self.KNOWN_SECONDS
        self._known = {key: at for key, at in self._known.items() if at >= long_ago}


def _encoded(password: str) -> bytes:
    return password.encode("utf-8", "replace")
