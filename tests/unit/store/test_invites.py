"""An invite lets one person in, once, with the role it names; what operators do can be looked up."""

from __future__ import annotations

from datetime import timedelta
from types import SimpleNamespace

import pytest

from tutelage.errors import Conflict, Denied, NotFound
from tutelage.store import Store, accounts, audit, invites
from tutelage.store.ids import now


def test_an_invite_is_used_once(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        invite, token = invites.create_invite(tx, role="trainer", by=cast.operator)
        guest = accounts.create_guest(tx)
        assert [row.id for row in invites.list_invites(tx)] == [invite.id]
        user = invites.accept_invite(tx, token, name="New", password_hash="-", guest_id=guest.id)
        assert (user.id, user.name, user.role) == (guest.id, "New", "trainer")
        assert invites.list_invites(tx) == []
        with pytest.raises(Denied):
            invites.accept_invite(tx, token, name="Other", password_hash="-", guest_id=None)


def test_old_revoked_and_made_up_invites_let_nobody_in(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        old, old_token = invites.create_invite(tx, role="user", by=cast.operator)
        old.expires = now() - timedelta(seconds=1)
        gone, gone_token = invites.create_invite(tx, role="user", by=cast.operator)
        invites.revoke_invite(tx, gone.id)
        for token in (old_token, gone_token, "made up"):
            with pytest.raises(Denied):
                invites.open_invite(tx, token)
        with pytest.raises(NotFound):
            invites.revoke_invite(tx, gone.id)


def test_a_taken_name_leaves_the_invite_open(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        _, token = invites.create_invite(tx, role="user", by=cast.operator)
    with pytest.raises(Conflict), store.write() as tx:
        invites.accept_invite(tx, token, name="reader", password_hash="-", guest_id=None)
    with store.write() as tx:
        assert invites.accept_invite(tx, token, name="fresh", password_hash="-", guest_id=None).role == "user"


def test_the_audit_log_goes_from_the_newest_back_and_outlives_its_actors(
    store: Store, cast: SimpleNamespace
) -> None:
    with store.write() as tx:
        first = audit.record(tx, cast.operator, "read_feedback", "r1")
        second = audit.record(tx, cast.trainer, "change_role", "u1", detail={"role": "user"})
        assert [(row.id, name) for row, name in audit.list_entries(tx)] == [
            (second.id, "trainer"),
            (first.id, "operator"),
        ]
        assert [row.id for row, _ in audit.list_entries(tx, before=second.id)] == [first.id]
        accounts.delete_user(tx, cast.trainer)
        assert audit.list_entries(tx)[0][1] is None
