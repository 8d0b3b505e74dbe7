from __future__ import annotations

from tutelage.moderation.breaker import Breaker


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_it_opens_after_failures_in_a_row_and_tries_again_after_a_rest() -> None:
    clock = Clock()
    breaker = Breaker(limit=2, rest=30, clock=clock)
    breaker.record(success=False)
    assert breaker.allows()
    breaker.record(success=False)
    assert not breaker.allows()
    clock.now = 29.9
    assert not breaker.allows()
    clock.now = 30
    assert breaker.allows()
    assert not breaker.allows(), "one call tries, the others wait for how it went"


def test_a_success_closes_it() -> None:
    clock = Clock()
    breaker = Breaker(limit=1, rest=30, clock=clock)
    breaker.record(success=False)
    clock.now = 30
    assert breaker.allows()
    breaker.record(success=True)
    assert breaker.allows()
    assert breaker.allows()


def test_a_failed_try_makes_it_rest_again() -> None:
    clock = Clock()
    breaker = Breaker(limit=1, rest=30, clock=clock)
    breaker.record(success=False)
    clock.now = 30
    assert breaker.allows()
    breaker.record(success=False)
    clock.now = 59.9
    assert not breaker.allows()
    clock.now = 60
    assert breaker.allows()


def test_only_failures_in_a_row_count() -> None:
    breaker = Breaker(limit=2)
    breaker.record(success=False)
    breaker.record(success=True)
    breaker.record(success=False)
    assert breaker.allows()
