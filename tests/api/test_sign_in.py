"""/api/sign-in, /api/sign-out, /api/account: names, passwords, sessions."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from anyio.to_thread import run_sync
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from tutelage.errors import RateLimited
from tutelage.server import passwords
from tutelage.server.passwords import SignInLimits

PASSWORD = "correct horse battery"


@pytest.fixture
def cheap(monkeypatch: pytest.MonkeyPatch) -> None:
    """Passwords that cost next to nothing to check."""
    monkeypatch.setattr(passwords, "_hasher", PasswordHasher(time_cost=1, memory_cost=64, parallelism=1))


@pytest.fixture
def ann(client: TestClient, cheap: None) -> TestClient:
    """A client that is signed in as ann."""
    named = client.put("/api/account", json={"name": "ann", "password": PASSWORD})
    assert named.status_code == 200, named.text
    return client


def sign_in(client: TestClient, name: str = "ann", password: str = PASSWORD) -> Any:
    return client.post("/api/sign-in", json={"name": name, "password": password})


def test_a_guest_who_takes_a_name_keeps_their_chats(client: TestClient) -> None:
    dialogue_id = client.post("/api/dialogues", json={"text": "Hi"}).json()["dialogue_id"]
    user = client.put("/api/account", json={"name": "ann", "password": PASSWORD}).json()["user"]
    assert (user["name"], user["role"]) == ("ann", "user")
    client.cookies.clear()
    assert sign_in(client, "Ann").json()["user"]["id"] == user["id"]
    assert client.get(f"/api/dialogues/{dialogue_id}").status_code == 200


def test_wrong_names_and_passwords_are_told_apart_by_nobody(ann: TestClient) -> None:
    ann.cookies.clear()
    wrong_password, wrong_name = sign_in(ann, password="wrong"), sign_in(ann, "bob")
    assert wrong_password.status_code == wrong_name.status_code == 401
    assert wrong_password.json() == wrong_name.json()
    assert len(ann.cookies) == 0


def test_an_unknown_name_costs_as_much_as_a_wrong_password(client: TestClient) -> None:
    client.put("/api/account", json={"name": "ann", "password": PASSWORD})

    def seconds(name: str) -> float:
        started = time.perf_counter()
        sign_in(client, name, "wrong")
        return time.perf_counter() - started

    known = min(seconds("ann") for _ in range(3))
    unknown = min(seconds("bob") for _ in range(3))
    assert 0.33 < unknown / known < 3


def test_a_session_is_new_after_signing_in_and_dead_after_signing_out(ann: TestClient) -> None:
    before = ann.cookies["tutelage"]
    sign_in(ann)
    after = ann.cookies["tutelage"]
    assert before != after
    assert ann.get("/api/me", headers={"cookie": f"tutelage={before}"}).json()["user"] is None
    assert ann.post("/api/sign-out").status_code == 204
    assert "tutelage" not in ann.cookies
    assert ann.get("/api/me", headers={"cookie": f"tutelage={after}"}).json()["user"] is None


def test_failures_are_limited_for_each_account_however_its_name_is_typed(ann: TestClient) -> None:
    typed = ("ann", "ANN", " ann", "ann  ", "ａｎｎ", "\tann\n", "a\x00nn")
    for n in range(SignInLimits.PER_ACCOUNT):
        assert sign_in(ann, typed[n % len(typed)], "wrong").status_code == 401
    refused = sign_in(ann)
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) > 800
    assert sign_in(ann, "bob", "wrong").status_code == 401


def test_a_success_forgets_an_accounts_failures() -> None:
    limits = SignInLimits()
    for _ in range(SignInLimits.PER_ACCOUNT - 1):
        limits.failed("ann", "10.0.0.1")
    limits.succeeded("ann", "10.0.0.2")
    limits.failed("ann", "10.0.0.1")
    limits.check("ann", "10.0.0.1")


def test_nobody_is_kept_out_of_where_they_have_signed_in_before(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("tutelage.server.passwords.monotonic", lambda: now)
    limits = SignInLimits()
    limits.succeeded("ann", "10.0.0.1")

    def guess() -> None:
        for n in range(SignInLimits.PER_ACCOUNT):
            limits.failed("ann", f"10.0.1.{n}")

    guess()
    limits.check("ann", "10.0.0.1")
    with pytest.raises(RateLimited):
        limits.check("ann", "10.0.0.2")
    for _ in range(SignInLimits.PER_ADDRESS):
        limits.failed("somebody", "10.0.0.1")
    with pytest.raises(RateLimited):
        limits.check("ann", "10.0.0.1")
    now += SignInLimits.KNOWN_SECONDS + 1
    guess()
    with pytest.raises(RateLimited):
        limits.check("ann", "10.0.0.1")


def test_failures_are_limited_for_each_address() -> None:
    limits = SignInLimits()
    for n in range(SignInLimits.PER_ADDRESS):
        limits.failed(f"user{n}", "10.0.0.1")
    limits.check("somebody", "10.0.0.2")
    with pytest.raises(RateLimited):
        limits.check("somebody", "10.0.0.1")


def test_one_customer_of_ipv6_is_one_address() -> None:
    limits = SignInLimits()
    for n in range(SignInLimits.PER_ADDRESS):
        limits.failed(f"user{n}", f"2001:db8::{n:x}")
    limits.check("somebody", "2001:db8:0:1::1")
    with pytest.raises(RateLimited):
        limits.check("somebody", "2001:db8::ffff")


def test_guesses_sent_all_at_once_are_limited_too(monkeypatch: pytest.MonkeyPatch) -> None:
    looked = 0

    async def slow(password: str, password_hash: str | None) -> bool:
        nonlocal looked
        looked += 1
        await asyncio.sleep(0)
        return False

    async def guess(limits: SignInLimits, number: int) -> object:
        return await limits.matches("ann", f"10.0.0.{number}", str(number), "hash")

    async def guesses() -> list[object]:
        limits = SignInLimits()
        return await asyncio.gather(*(guess(limits, n) for n in range(100)), return_exceptions=True)

    monkeypatch.setattr(passwords, "matches", slow)
    found = asyncio.run(guesses())
    assert sum(isinstance(each, RateLimited) for each in found) >= 100 - looked
    assert looked < SignInLimits.PER_ACCOUNT + passwords.AT_ONCE


def test_one_address_does_not_fill_the_line_before_all_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right passwords and new ones take as long as wrong ones, and nobody counts them."""
    limits, going_on = SignInLimits(), asyncio.Event()

    async def slow(*_: object) -> bool:
        await going_on.wait()
        return True

    async def crowd() -> list[object]:
        asked = [limits.matches("ann", "10.0.0.1", "right", "hash") for _ in range(SignInLimits.WAITING)]
        first = [asyncio.create_task(each) for each in asked]
        await asyncio.sleep(0)
        for more in (limits.matches("bob", "10.0.0.1", "right", "hash"), limits.hash("10.0.0.1", "new")):
            with pytest.raises(RateLimited, match="at once"):
                await more
        other = asyncio.create_task(limits.matches("bob", "10.0.0.2", "right", "hash"))
        await asyncio.sleep(0)
        going_on.set()
        return await asyncio.gather(*first, other, limits.matches("ann", "10.0.0.3", "right", "hash"))

    monkeypatch.setattr(passwords, "matches", slow)
    assert all(asyncio.run(crowd()))
    assert not limits._waiting


def test_passwords_that_wait_keep_nobody_else_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    told = threading.Event()

    class Slow:
        def verify(self, known: str, password: bytes) -> bool:
            assert told.wait(20)
            return False

    async def beside() -> bool:
        crowd = [asyncio.ensure_future(passwords.matches("wrong", "hash")) for _ in range(100)]
        await asyncio.sleep(0.1)
        try:
            return await asyncio.wait_for(run_sync(lambda: True), 5)
        finally:
            told.set()
            await asyncio.gather(*crowd)

    monkeypatch.setattr(passwords, "_hasher", Slow())
    assert asyncio.run(beside())


def test_limits_end_after_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr("tutelage.server.passwords.monotonic", lambda: now)
    limits = SignInLimits()
    for _ in range(SignInLimits.PER_ACCOUNT):
        limits.failed("ann", "10.0.0.1")
    now += SignInLimits.WINDOW_SECONDS + 1
    limits.check("ann", "10.0.0.1")
    assert limits._failures == {}


def test_a_password_can_be_changed_and_ends_other_sessions(ann: TestClient) -> None:
    other = ann.cookies["tutelage"]
    sign_in(ann)
    body = {"old": PASSWORD, "new": "another horse battery"}
    assert ann.put("/api/account/password", json={**body, "old": "wrong"}).status_code == 400
    assert ann.put("/api/account/password", json=body).status_code == 200
    assert ann.get("/api/me").json()["user"]["name"] == "ann"
    assert ann.get("/api/me", headers={"cookie": f"tutelage={other}"}).json()["user"] is None
    assert sign_in(ann).status_code == 401
    assert sign_in(ann, password="another horse battery").status_code == 200


def test_guessing_the_old_password_is_limited(ann: TestClient) -> None:
    body = {"old": "wrong", "new": "another horse battery"}
    statuses = [ann.put("/api/account/password", json=body).status_code for _ in range(11)]
    assert (statuses[0], statuses[-1]) == (400, 429)


@pytest.mark.parametrize(
    ("name", "password"), [("ann", "short"), ("", PASSWORD), ("a\nb", PASSWORD), ("é" * 65, PASSWORD)]
)
def test_poor_names_and_passwords_are_refused(client: TestClient, name: str, password: str) -> None:
    assert client.put("/api/account", json={"name": name, "password": password}).status_code == 400


def test_a_name_is_given_once(ann: TestClient) -> None:
    assert ann.put("/api/account", json={"name": "eve", "password": PASSWORD}).status_code == 409
    ann.cookies.clear()
    assert ann.put("/api/account", json={"name": "ANN", "password": PASSWORD}).status_code == 409
