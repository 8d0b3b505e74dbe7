"""How much one key, and one address, may ask of `/v1`: token buckets in memory, and the headers that tell of them."""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Literal

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tutelage.errors import RateLimited

MINUTE, DAY = 60.0, 86_400.0
MOST_BUCKETS = 20_000

Kind = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Limits:
    """For one key: requests and tokens a minute, tokens a day; requests a minute from one address. 0: no limit."""

    requests: int = 3_000
    tokens: int = 2_000_000
    daily_tokens: int = 0
    address_requests: int = 6_000


class OverLimit(RateLimited):
    """A key or an address asked for more than it may have."""

    def __init__(self, message: str, *, kind: str, code: str, retry_after: float) -> None:
        super().__init__(
            message, retry_after=retry_after, hint=f"wait {duration(retry_after)}, or ask for less"
        )
        self.type = kind
        self.code = code


@dataclass(slots=True)
class Bucket:
    """Holds up to `capacity`, and is filled again from empty in `seconds`. Debts are paid before anything is given."""

    capacity: float
    seconds: float
    level: float
    at: float

    def refill(self, now: float) -> None:
        """Let the time since the last look flow in."""
        self.level = min(self.capacity, self.level + (now - self.at) * self.capacity / self.seconds)
        self.at = now

    def wait(self, amount: float) -> float:
        """Seconds until so much can be taken: 0 now. What is more than the whole waits until the bucket is full."""
        missing = min(amount, self.capacity) - self.level
        return max(0.0, missing * self.seconds / self.capacity)

    @property
    def full_in(self) -> float:
        """Seconds until it is full."""
        return (self.capacity - self.level) * self.seconds / self.capacity


@dataclass(slots=True)
class Allowance:
    """What a key may still do, for the time of one request."""

    requests: Bucket | None
    tokens: Bucket | None
    day: Bucket | None
    clock: Callable[[], float]

    def reserve(self, tokens: int) -> None:
        """Take the tokens of a prompt. Raises OverLimit when there are not so many."""
        self._refill()
        if self.day is not None and (seconds := self.day.wait(tokens)):
            raise OverLimit(
                f"this key has used its {self.day.capacity:.0f} tokens a day",
                kind="insufficient_quota",
                code="insufficient_quota",
                retry_after=seconds,
            )
        if self.tokens is not None and (seconds := self.tokens.wait(tokens)):
            raise _too_fast("key", "tokens", self.tokens, seconds)
        self.spend(tokens)

    def spend(self, tokens: int) -> None:
        """Take the tokens of an answer: they have been written, so this may leave a debt."""
        for bucket in (self.tokens, self.day):
            if bucket is not None:
                bucket.level -= tokens

    def headers(self) -> dict[str, str]:
        """What the client is told."""
        self._refill()
        found: dict[str, str] = {}
        for kind, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{kind}"] = f"{bucket.capacity:.0f}"
                found[f"x-ratelimit-remaining-{kind}"] = str(max(0, int(bucket.level)))
                found[f"x-ratelimit-reset-{kind}"] = duration(bucket.full_in)
        return found

    def _refill(self) -> None:
        now = self.clock()
        for bucket in (self.requests, self.tokens, self.day):
            if bucket is not None:
                bucket.refill(now)


@dataclass(slots=True)
class RateLimits:
    """The buckets of a running server. Used by its event loop alone."""

    limits: Limits
    clock: Callable[[], float] = monotonic
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict)

    def arrive(self, address: str) -> None:
        """Count a request from an address, whoever sent it. Raises OverLimit."""
        self._take("address", self._bucket("address", network(address), self.limits.address_requests, MINUTE))

    def admit(self, key_id: str) -> Allowance:
        """What a key may do. Count its request by `begin`."""
        return Allowance(
            self._bucket("requests", key_id, self.limits.requests, MINUTE),
            self._bucket("tokens", key_id, self.limits.tokens, MINUTE),
            self._bucket("day", key_id, self.limits.daily_tokens, DAY),
            self.clock,
        )

    def begin(self, allowance: Allowance) -> None:
        """Count a request of a key. Raises OverLimit."""
        self._take("key", allowance.requests)

    def _take(self, whose: str, bucket: Bucket | None) -> None:
        if bucket is None:
            return
        bucket.refill(self.clock())
        if seconds := bucket.wait(1):
            raise _too_fast(whose, "requests", bucket, seconds)
        bucket.level -= 1

    def _bucket(self, kind: str, name: str, capacity: int, seconds: float) -> Bucket | None:
        if not capacity:
            return None
        if len(self._buckets) >= MOST_BUCKETS:
            self._forget()
        now = self.clock()
        return self._buckets.setdefault((kind, name), Bucket(capacity, seconds, capacity, now))

    def _forget(self) -> None:
        """Drop the half that is full again, or will be first."""
        now = self.clock()
        for bucket in self._buckets.values():
            bucket.refill(now)
        by_debt = sorted(self._buckets.items(), key=lambda item: item[1].full_in, reverse=True)
        self._buckets = dict(by_debt[: MOST_BUCKETS // 2])


class RateLimitHeaders:
    """Tells clients of `/v1` what they may still do; `request.state.allowance` is what their key has left."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def told(message: Message) -> None:
            allowance: Allowance | None = scope.get("state", {}).get("allowance")
            if message["type"] == "http.response.start" and allowance is not None:
                MutableHeaders(scope=message).update(allowance.headers())
            await send(message)

        await self.app(scope, receive, told)


def duration(seconds: float) -> str:
    """As OpenAI writes it: `20ms`, `1.5s`, `6m0s`, `2h5m0s`."""
    if seconds < 1:
        return f"{round(seconds * 1000)}ms"
    minutes, rest = divmod(round(seconds, 1 if seconds < 60 else None), 60)
    hours, minutes = divmod(int(minutes), 60)
    return (f"{hours}h" if hours else "") + (f"{minutes}m" if hours or minutes else "") + f"{rest:g}s"


def network(address: str) -> str:
    """An address as it is counted: one of IPv6 by its /64, which is one customer's."""
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4 or parsed.ipv4_mapped:
        return str(getattr(parsed, "ipv4_mapped", None) or parsed)
    return str(ipaddress.ip_network((parsed, 64), strict=False).network_address)


def _too_fast(whose: str, kind: Kind, bucket: Bucket, seconds: float) -> OverLimit:
    return OverLimit(
        f"this {whose} may use {bucket.capacity:.0f} {kind} a minute",
        kind=kind,
        code="rate_limit_exceeded",
        retry_after=seconds,
    )
