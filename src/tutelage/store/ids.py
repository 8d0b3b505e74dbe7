"""Row ids (UUIDv7) and the clock."""

from __future__ import annotations

import secrets
import threading
import time
import uuid
from datetime import UTC, datetime

_RANDOM_BITS = 62


class _Sequence:
    """Hands out strictly growing 60-bit ticks: 48 bits of milliseconds and 12 bits of their fraction.

    When the clock stands still or jumps back, the last tick plus one is used, so ids stay in order.
    """

    def __init__(self) -> None:
        self._last = 0
        self._lock = threading.Lock()

    def next(self, nanoseconds: int) -> int:
        milliseconds, rest = divmod(nanoseconds, 1_000_000)
        tick = (milliseconds << 12) | (rest * 4096 // 1_000_000)
        with self._lock:
            self._last = max(tick, self._last + 1)
            return self._last


_sequence = _Sequence()


def new_id() -> str:
    """A UUIDv7 as text (RFC 9562, method 3). Ids made by one process sort in the order they were made."""
    tick = _sequence.next(time.time_ns())
    upper = ((tick >> 12) << 16) | 0x7000 | (tick & 0xFFF)
    lower = (0b10 << _RANDOM_BITS) | secrets.randbits(_RANDOM_BITS)
    return str(uuid.UUID(int=(upper << 64) | lower))


def now() -> datetime:
    """The present moment in UTC."""
    return datetime.now(UTC)


def new_lot() -> int:
    """A random number that fits a signed 64-bit column."""
    return secrets.randbits(63)
