"""Accounts are found by issuer and subject, and by nothing else."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from tutelage.errors import Conflict, Denied, NotFound
from tutelage.store import Store, accounts, identities, invites
from tutelage.store.tables import Identity

ISSUER = "https://id.example.org"


def test_an_identity_is_one_account_for_ever(store: Store) -> None:
    with store.write() as tx:
        first = identities.admit(tx, ISSUER, "1", names=["ann"], newcomers=True)
        again = identities.admit(tx, ISSUER, "1", names=["other"], newcomers=False)
        assert (first.id, first.name, first.password_hash, first.role) == (again.id, "ann", None, "user")
        for issuer, subject in ((ISSUER, "2"), (f"{ISSUER}/", "1")):
            assert identities.admit(tx, issuer, subject, names=["ann"], newcomers=True).id != first.id


def test_a_newcomer_who_may_not_come_leaves_nothing(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        before = accounts.count_users(tx)
        with pytest.raises(Denied):
            identities.admit(tx, ISSUER, "1", names=["ann"], newcomers=False)
        with pytest.raises(Denied):
            identities.admit(tx, ISSUER, "1", names=["ann"], newcomers=True, invite="made up")
        assert accounts.count_users(tx) == before
        assert tx.scalar(select(func.count()).select_from(Identity)) == 0


def test_an_invitation_gives_its_role_and_a_guest_stays_the_same(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        guest = accounts.create_guest(tx)
        _, token = invites.create_invite(tx, role="trainer", by=cast.operator)
        invited = {"newcomers": False, "invite": token, "guest_id": guest.id}
        user = identities.admit(tx, ISSUER, "1", names=["ann"], **invited)
        assert (user.id, user.role, user.password_hash) == (guest.id, "trainer", None)
        with pytest.raises(Denied):
            identities.admit(tx, ISSUER, "2", names=["bob"], newcomers=False, invite=token)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["ann"], "ann"),
        (["", " \u202e\x00 ", "ann"], "ann"),
        ([], "user"),
        (["Reader"], "Reader-2"),
        (["ｒｅａｄｅｒ"], "reader-2"),
        (["x" * 100], "x" * 64),
        (["王小明"], "王小明"),
    ],
)
def test_names_are_made_free(store: Store, cast: SimpleNamespace, names: list[str], expected: str) -> None:
    with store.write() as tx:
        assert identities.free_name(tx, names) == expected
        user = accounts.create_user(tx, name=expected, password_hash=None, role="user")
        assert user.name == expected
        longer = identities.free_name(tx, names)
        assert longer != expected
        assert len(longer) <= identities.LONGEST_NAME


def test_an_identity_is_connected_to_one_account(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        identities.connect(tx, ISSUER, "1", cast.reader)
        identities.connect(tx, ISSUER, "1", cast.reader)
        with pytest.raises(Conflict):
            identities.connect(tx, ISSUER, "1", cast.trainer)
        [row] = identities.list_identities(tx, cast.reader)
        with pytest.raises(NotFound):
            identities.disconnect(tx, row.id, cast.trainer)
        identities.disconnect(tx, row.id, cast.reader)
        assert identities.list_identities(tx, cast.reader) == []


def test_the_last_way_to_sign_in_is_not_taken(store: Store) -> None:
    with store.write() as tx:
        user = identities.admit(tx, ISSUER, "1", names=["ann"], newcomers=True)
        identities.connect(tx, "https://other.example", "1", user.id)
        first, second = identities.list_identities(tx, user.id)
        identities.disconnect(tx, first.id, user.id)
        with pytest.raises(Conflict):
            identities.disconnect(tx, second.id, user.id)


def test_a_deleted_account_takes_its_identities_along(store: Store) -> None:
    with store.write() as tx:
        user = identities.admit(tx, ISSUER, "1", names=["ann"], newcomers=True)
        accounts.delete_user(tx, user.id)
        assert identities.identity_user(tx, ISSUER, "1") is None
