"""A share is a copy: what is said later, hidden, or secret is not in it, and it ends when its owner says so."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tutelage.errors import InvalidRequest, NotFound
from tutelage.store import Store, bin, dialogues, shares

Chat = Callable[..., list]


def test_a_share_is_a_copy_that_its_owner_renews_and_takes_away(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    mine = rows[0].dialogue_id
    with store.write() as tx:
        token = shares.share(tx, mine, owner_id=cast.reader).token
        dialogues.add_message(
            tx, mine, parent_id=rows[1].id, role="user", content="later", author_kind="human"
        )
    with store.read() as tx:
        assert shares.shared(tx, token).messages == [
            {"role": "user", "content": "q"},
            {"role": "assistant", "content": "a"},
        ]
    with store.write() as tx:
        again = shares.share(tx, mine, owner_id=cast.reader)
        assert (again.token, again.messages[-1]["content"]) == (token, "later")
        assert [row.token for row in shares.list_shares(tx, cast.reader)] == [token]
        for attempt in (shares.share, shares.share_of, shares.unshare):
            with pytest.raises(NotFound):
                attempt(tx, mine, owner_id=cast.operator)
        shares.unshare(tx, mine, owner_id=cast.reader)
        shares.unshare(tx, mine, owner_id=cast.reader)
        with pytest.raises(NotFound):
            shares.shared(tx, token)
        assert shares.share(tx, mine, owner_id=cast.reader).token != token


def test_hidden_texts_and_instructions_are_not_shared(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        mine = dialogues.create_dialogue(tx, cast.reader).id
        parent = None
        for role, text, status in (
            ("system", "be brief", "complete"),
            ("user", "q", "complete"),
            ("assistant", "secret", "blocked"),
        ):
            parent = dialogues.add_message(
                tx, mine, parent_id=parent, role=role, content=text, author_kind="human", status=status
            ).id
        assert shares.share(tx, mine, owner_id=cast.reader).messages == [{"role": "user", "content": "q"}]


def test_temporary_and_empty_dialogues_cannot_be_shared(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    temporary = chat(cast.reader, "q", "a", temporary=True)[0].dialogue_id
    with store.write() as tx:
        empty = dialogues.create_dialogue(tx, cast.reader).id
        for mine in (temporary, empty):
            with pytest.raises(InvalidRequest):
                shares.share(tx, mine, owner_id=cast.reader)


def test_the_share_of_a_binned_dialogue_leads_nowhere(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    mine = chat(cast.reader, "q", "a")[0].dialogue_id
    with store.write() as tx:
        token = shares.share(tx, mine, owner_id=cast.reader).token
        bin.bin_dialogue(tx, mine, owner_id=cast.reader)
        assert shares.list_shares(tx, cast.reader) == []
        with pytest.raises(NotFound):
            shares.shared(tx, token)
