"""Token buckets, by a clock that the test sets."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import RateLimited
from tutelage.server import limits
from tutelage.server.limits import Limits, OverLimit, RateLimits, duration, network


@dataclass
class Clock:
    now: float = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_bucket_fills_again_as_time_passes() -> None:
    clock = Clock()
    rates = RateLimits(Limits(requests=2), clock)
    for _ in range(2):
        rates.begin(rates.admit("key"))
    with pytest.raises(OverLimit) as refused:
        rates.begin(rates.admit("key"))
    assert refused.value.retry_after == pytest.approx(30)
    clock.now += 30
    rates.begin(rates.admit("key"))
    allowance = rates.admit("key")
    assert allowance.headers()["x-ratelimit-reset-requests"] == "1m0s"
    clock.now += 30
    assert allowance.headers()["x-ratelimit-reset-requests"] == "30s"


def test_what_an_answer_took_is_a_debt_that_time_pays() -> None:
    clock = Clock()
    rates = RateLimits(Limits(tokens=60), clock)
    allowance = rates.admit("key")
    allowance.reserve(10)
    allowance.spend(110)
    assert allowance.headers()["x-ratelimit-remaining-tokens"] == "0"
    with pytest.raises(OverLimit) as refused:
        rates.admit("key").reserve(5)
    assert refused.value.retry_after == pytest.approx(65)
    clock.now += 65
    rates.admit("key").reserve(5)


@given(steps=st.lists(st.tuples(st.floats(0, 20), st.booleans()), max_size=60))
def test_nobody_gets_more_than_the_bucket_and_its_inflow(steps: list[tuple[float, bool]]) -> None:
    clock, taken, start = Clock(), 0, 1000.0
    rates = RateLimits(Limits(requests=5), clock)
    for pause, ask in steps:
        clock.now += pause
        with suppress(RateLimited):
            if ask:
                rates.begin(rates.admit("key"))
                taken += 1
    assert taken <= 5 + (clock.now - start) * 5 / 60 + 1e-6


def test_addresses_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUCKETS", 100)
    rates = RateLimits(Limits(address_requests=1), Clock())
    rates.arrive("10.9.9.9")
    for number in range(1000):
        rates.arrive(f"10.0.{number // 250}.{number % 250}")
    assert len(rates._buckets) <= 100


def test_who_has_asked_for_most_is_not_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MOST_BUCKETS", 100)
    clock = Clock()
    rates = RateLimits(Limits(address_requests=2), clock)
    for number in range(120):
        rates.arrive(f"10.1.0.{number // 2}")
    clock.now += 59  # these have nearly all back
    for _ in range(2):
        rates.arrive("10.9.9.9")
    for number in range(200):
        rates.arrive(f"10.0.0.{number}")
    with pytest.raises(OverLimit):
        rates.arrive("10.9.9.9")


def test_one_customer_of_ipv6_is_one_address() -> None:
    assert network("2001:db8:1:2::1") == network("2001:db8:1:2:ffff::9") != network("2001:db8:1:3::1")
    assert network("::ffff:10.0.0.1") == network("10.0.0.1") != network("10.0.0.2")
    assert network("testclient") == "testclient"
    rates = RateLimits(Limits(address_requests=1), Clock())
    rates.arrive("2001:db8:1:2::1")
    with pytest.raises(OverLimit):
        rates.arrive("2001:db8:1:2::9")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0ms"),
        (0.02, "20ms"),
        (1.55, "1.6s"),
        (30, "30s"),
        (60, "1m0s"),
        (59.99, "1m0s"),
        (7200, "2h0m0s"),
        (7500, "2h5m0s"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text
