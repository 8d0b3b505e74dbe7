from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import func, select

from tutelage.errors import Conflict, Denied, InvalidRequest, NotFound
from tutelage.store import Store, accounts, audit, dialogues, feedback, labelling
from tutelage.store.ids import now
from tutelage.store.tables import ApiKey, Demonstration, Dialogue, Message, OperatorLink, UserSession

Chat = Callable[..., list[Message]]


def test_a_name_is_taken_once_whatever_its_case(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        found = accounts.find_by_name(tx, " READER ")
        assert found is not None
        assert found.id == cast.reader
        assert accounts.find_by_name(tx, "nobody") is None
        for name in ("Reader", "ｒｅａｄｅｒ"):
            with pytest.raises(Conflict):
                accounts.create_user(tx, name=name, password_hash="-", role="user")


@pytest.mark.parametrize(
    "name", ["", "   ", "x" * 65, "two\nlines", "right\u202eleft", "\x00", "\u2800", "ann\ufe01", "\u3164"]
)
def test_names_can_be_seen(store: Store, name: str) -> None:
    with store.write() as tx, pytest.raises(InvalidRequest):
        accounts.create_user(tx, name=name, password_hash="-", role="user")


def test_a_guest_becomes_a_user_and_keeps_the_chats(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    with store.write() as tx:
        guest = accounts.create_guest(tx, locale="zh-Hant")
    dialogue_id = chat(guest.id, "q")[0].dialogue_id
    with store.write() as tx:
        with pytest.raises(Conflict):
            accounts.promote_guest(tx, guest.id, name="reader", password_hash="-")
        user = accounts.promote_guest(tx, guest.id, name="newcomer", password_hash="hash")
        assert (user.id, user.role, user.name, user.locale) == (guest.id, "user", "newcomer", "zh-Hant")
        assert dialogues.get_dialogue(tx, dialogue_id, owner_id=user.id).id == dialogue_id
        with pytest.raises(Conflict):
            accounts.promote_guest(tx, guest.id, name="again", password_hash="-")


def test_an_operator_without_a_name_stays_operator(store: Store) -> None:
    with store.write() as tx:
        user = accounts.use_operator_link(tx, accounts.make_operator_link(tx), None)
        assert accounts.promote_guest(tx, user.id, name="chief", password_hash="-").role == "operator"


def test_a_password_that_was_forgotten_is_replaced(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        token = accounts.open_session(tx, cast.reader, days=1)
        assert accounts.replace_password(tx, " READER ", "new").id == cast.reader
        assert accounts.session_user(tx, token) is None
        assert accounts.get_user(tx, cast.reader).password_hash == "new"
        ((entry, actor),) = audit.list_entries(tx)
        assert (entry.actor_id, actor, entry.subject) == (None, None, cast.reader)
        with pytest.raises(NotFound, match="nobody with the name “stranger”") as caught:
            accounts.replace_password(tx, "stranger", "new")
        assert "people list" in caught.value.hint


def test_sessions_open_close_and_expire(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        first = accounts.open_session(tx, cast.reader, days=1)
        second = accounts.open_session(tx, cast.reader, days=1)
        old = accounts.open_session(tx, cast.private, days=-1)
        assert first != second
        user = accounts.session_user(tx, first)
        assert user is not None
        assert user.id == cast.reader
        assert accounts.session_user(tx, old) is None
        assert accounts.list_sessions(tx, cast.private) == []
        assert accounts.session_user(tx, "\ud800") is None
        accounts.close_session(tx, first)
        assert accounts.session_user(tx, first) is None
        assert len(accounts.list_sessions(tx, cast.reader)) == 1
        accounts.close_sessions(tx, cast.reader)
        assert accounts.session_user(tx, second) is None
        with pytest.raises(NotFound):
            accounts.open_session(tx, "nobody", days=1)


def test_one_session_can_be_closed_by_its_id_and_only_by_its_user(
    store: Store, cast: SimpleNamespace
) -> None:
    with store.write() as tx:
        token = accounts.open_session(tx, cast.reader, days=1)
        [session] = accounts.list_sessions(tx, cast.reader)
        accounts.close_sessions(tx, cast.private, session_id=session.id)
        assert accounts.session_user(tx, token) is not None
        accounts.close_sessions(tx, cast.reader, session_id=session.id)
        assert accounts.session_user(tx, token) is None


def test_a_new_password_ends_all_sessions(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        token = accounts.open_session(tx, cast.reader, days=1)
        assert accounts.set_password(tx, cast.reader, "new").password_hash == "new"
        assert accounts.session_user(tx, token) is None


@pytest.mark.sqlite
def test_no_token_or_key_is_kept(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        shown = [
            accounts.open_session(tx, cast.reader, days=1),
            accounts.make_operator_link(tx),
            accounts.create_key(tx, name="k", scopes=["chat"])[1],
        ]
        kept = [
            tx.scalar(select(UserSession.token_hash)),
            tx.scalar(select(OperatorLink.token_hash)),
            tx.scalar(select(ApiKey.secret_hash)),
        ]
    assert all(len(text) == 64 for text in kept if text)
    written = b"".join(file.read_bytes() for file in store.place.parent.iterdir())
    assert str(kept[0]).encode() in written
    assert not any(secret.encode() in written for secret in shown)


def test_an_operator_link_works_once_even_for_many_at_once(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        token = accounts.make_operator_link(tx)
    won = []

    def use(user_id: str) -> None:
        with suppress(Denied), store.write() as tx:
            won.append(accounts.use_operator_link(tx, token, user_id).id)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(use, [cast.reader, cast.private, cast.trainer, cast.second] * 3))
    assert len(won) == 1
    with store.read() as tx:
        assert accounts.get_user(tx, won[0]).role == "operator"


def test_old_or_made_up_operator_links_are_denied(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        token = accounts.make_operator_link(tx)
        link = tx.scalar(select(OperatorLink))
        assert link is not None
        assert timedelta(minutes=59) < link.expires - now() <= timedelta(hours=1)
        link.expires = now()
        for wrong in (token, "made up"):
            with pytest.raises(Denied):
                accounts.use_operator_link(tx, wrong, cast.reader)
        assert accounts.get_user(tx, cast.reader).role == "user"


def test_keys_work_until_they_are_revoked(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        key, secret = accounts.create_key(tx, name="script", scopes=["chat"], user_id=cast.reader)
        assert secret.startswith("tut-")
        assert secret.startswith(key.prefix)
        found = accounts.key_by_secret(tx, secret)
        assert found is not None
        assert (found.id, found.scopes) == (key.id, ["chat"])
        assert accounts.key_by_secret(tx, secret + "x") is None
        with pytest.raises(NotFound):
            accounts.revoke_key(tx, key.id, user_id=cast.private)
        accounts.revoke_key(tx, key.id, user_id=cast.reader)
        assert accounts.key_by_secret(tx, secret) is None
        assert [row.revoked is None for row in accounts.list_keys(tx, user_id=cast.reader)] == [False]
        assert accounts.list_keys(tx, user_id=cast.private) == []
        with pytest.raises(NotFound):
            accounts.revoke_key(tx, "none")


@pytest.mark.parametrize("scopes", [[], ["Chat"], ["chat", "cook"], [""]])
def test_keys_have_scopes_that_exist(store: Store, scopes: list[str]) -> None:
    with store.write() as tx, pytest.raises(InvalidRequest):
        accounts.create_key(tx, name="k", scopes=scopes)


def test_there_is_always_an_operator(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        with pytest.raises(Conflict):
            accounts.set_role(tx, cast.operator, "user")
        accounts.set_role(tx, cast.trainer, "operator")
        assert accounts.set_role(tx, cast.operator, "user").role == "user"


def test_consent_covers_past_chats_but_not_temporary_ones(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    for owner in (cast.private, cast.reader):
        chat(owner, "q")
        chat(owner, "q", temporary=True)

    def consenting() -> list[tuple[str | None, bool]]:
        with store.read() as tx:
            rows = tx.scalars(select(Dialogue).where(Dialogue.consent))
            return sorted((row.owner_id, row.temporary) for row in rows)

    assert consenting() == [(cast.reader, False)]
    with store.write() as tx:
        accounts.set_consent(tx, cast.private, True)
        accounts.set_consent(tx, cast.reader, False)
    assert consenting() == [(cast.private, False)]


def test_deleting_a_person_forgets_them_but_keeps_the_work_they_handed_in(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    message_id = chat(cast.trainer, "q", "a")[1].id
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    with store.write() as tx:
        feedback.rate(tx, message_id=message_id, rater_id=cast.trainer, verdict="up")
        token = accounts.open_session(tx, cast.trainer, days=1)
        labelling.save_demonstration(tx, author_id=cast.trainer, messages=turns, status="draft")
        kept = labelling.save_demonstration(tx, author_id=cast.trainer, messages=turns, status="submitted")
        back = labelling.save_demonstration(tx, author_id=cast.trainer, messages=turns, status="submitted")
        labelling.review_demonstration(tx, back.id, decision="sent_back", by=cast.operator)
        accounts.delete_user(tx, cast.trainer)
    with store.read() as tx:
        assert accounts.session_user(tx, token) is None
        assert tx.scalar(select(func.count()).select_from(Dialogue)) == 0
        [left] = tx.scalars(select(Demonstration)).all()
        assert (left.id, left.author_id) == (kept.id, None)
        with pytest.raises(NotFound):
            accounts.get_user(tx, cast.trainer)


def test_users_are_counted_and_listed_newest_first(store: Store, cast: SimpleNamespace) -> None:
    with store.read() as tx:
        assert accounts.count_users(tx) == 5
        assert accounts.count_users(tx, roles=("trainer", "operator")) == 3
        accounts.create_guest(tx)
        assert [user.id for user in accounts.list_members(tx)][:2] == [cast.operator, cast.second]
        assert [user.id for user in accounts.list_members(tx)][-1] == cast.reader


def test_a_language_is_kept(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        assert accounts.set_locale(tx, cast.reader, "zh-Hant").locale == "zh-Hant"
