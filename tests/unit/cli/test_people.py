"""`tutelage people`: who has an account, and the way back in for who has forgotten their password."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli import people
from tutelage.errors import NotFound
from tutelage.server import passwords
from tutelage.store import Store, accounts


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with a guest, an operator who has no name yet, and one who signs in elsewhere."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.delenv("TUTELAGE_DATABASE_URL", raising=False)
    store = Store.open(tmp_path / "tutelage.db")
    with store.write() as tx:
        accounts.create_guest(tx)
        accounts.use_operator_link(tx, accounts.make_operator_link(tx), None)
        accounts.create_user(tx, name="[ann]", password_hash=None, role="operator")
    store.close()
    return tmp_path


def run(*arguments: str) -> str:
    app = typer.Typer()
    people.register(app)
    done = CliRunner().invoke(app, ["people", *arguments])
    if done.exception and not isinstance(done.exception, SystemExit):
        raise done.exception
    return done.output


def listed() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(run("list", "--json"))["people"]
    return found


def test_a_new_password_opens_the_account_again(home: Path) -> None:
    assert [(each["name"], each["has_password"]) for each in listed()] == [("[ann]", False), (None, False)]
    made = run("password", "[ANN]").splitlines()[0]
    assert [each["has_password"] for each in listed()] == [True, False]
    store = Store.open(home / "tutelage.db")
    with store.read() as tx:
        kept = next(user.password_hash for user in accounts.list_members(tx) if user.name)
    store.close()
    assert asyncio.run(passwords.matches(made, kept))
    assert made not in kept
    passwords.check_new(made)


def test_people_are_told_apart(home: Path) -> None:
    ann, nameless = run("list").splitlines()
    assert ann.endswith("operator  [ann]  no password")
    assert nameless.endswith("operator  (without a name)  no password")


def test_nobody_of_that_name(home: Path) -> None:
    with pytest.raises(NotFound, match="nobody with the name “bob”"):
        run("password", "bob")


def test_before_anybody_came(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))
    monkeypatch.delenv("TUTELAGE_DATABASE_URL", raising=False)
    assert run("list").startswith("Nobody yet")
