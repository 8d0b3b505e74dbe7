"""A circuit breaker: after repeated failures a part is left alone for a while."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable


class Breaker:
    """Opens after `limit` failures in a row; after `rest` seconds lets one call through to try again.

    Safe to share between threads. `clock` is monotonic and in seconds.
    """

    def __init__(
        self, *, limit: int = 3, rest: float = 30.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._limit = limit
        self._rest = rest
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._next_try = 0.0

    def allows(self) -> bool:
        """Whether a call may be made now. While open, the call that is let through postpones the next one."""
        with self._lock:
            if self._failures < self._limit:
                return True
            now = self._clock()
            if now < self._next_try:
                return False
            self._next_try = now + self._rest
            return True

    def record(self, *, success: bool) -> None:
        """Tell how a call went."""
        with self._lock:
            self._failures = 0 if success else self._failures + 1
            if self._failures == self._limit:
                self._next_try = self._clock() + self._rest
