"""A binned dialogue is gone for everybody; its owner can take that back for a while."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace

import pytest
from sqlalchemy import select

from tutelage.errors import NotFound
from tutelage.store import Store, accounts, bin, dialogues
from tutelage.store.export import prompts
from tutelage.store.ids import now
from tutelage.store.tables import Dialogue, Tombstone

Chat = Callable[..., list]


def test_what_is_binned_does_not_exist_and_comes_back_whole(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "q", "a")
    mine = rows[0].dialogue_id
    with store.write() as tx:
        bin.bin_dialogue(tx, mine, owner_id=cast.reader)
        assert dialogues.list_dialogues(tx, cast.reader, limit=5) == []
        assert list(prompts(tx)) == []
        for attempt in (dialogues.get_dialogue, dialogues.delete_dialogue, bin.bin_dialogue):
            with pytest.raises(NotFound):
                attempt(tx, mine, owner_id=cast.reader)
        with pytest.raises(NotFound):
            dialogues.get_message(tx, rows[0].id, owner_id=cast.reader)
        with pytest.raises(NotFound):
            bin.restore_dialogue(tx, mine, owner_id=cast.operator)
        accounts.set_consent(tx, cast.reader, True)
        assert list(prompts(tx)) == []
        assert bin.restore_dialogue(tx, mine, owner_id=cast.reader).consent
        assert [row.id for row in dialogues.list_dialogues(tx, cast.reader, limit=5)] == [mine]
        assert len(list(prompts(tx))) == 1


def test_an_answer_in_a_binned_dialogue_has_no_reader(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        dialogue = dialogues.create_dialogue(tx, cast.reader)
        question = dialogues.add_message(
            tx, dialogue.id, parent_id=None, role="user", content="q", author_kind="human"
        )
        answer = dialogues.start_answer(
            tx, dialogue.id, parent_id=question.id, model_version="v1", sampling={}
        )
        bin.bin_dialogue(tx, dialogue.id, owner_id=cast.reader)
        with pytest.raises(NotFound):
            dialogues.flush_answer(tx, answer.id, content="x")
        ended = dialogues.finish_answer(tx, answer.id, content="x", status="interrupted", finish_reason=None)
        assert ended.status == "interrupted"


def test_old_bins_and_silent_temporary_chats_are_purged_with_tombstones(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    kept, fresh, old = (chat(cast.reader, "q", "a")[0].dialogue_id for _ in range(3))
    talking, silent = (chat(cast.reader, "q", "a", temporary=True)[0].dialogue_id for _ in range(2))
    with store.write() as tx:
        bin.bin_dialogue(tx, fresh, owner_id=cast.reader)
        bin.bin_dialogue(tx, old, owner_id=cast.reader)
        tx.get_one(Dialogue, old).binned = now() - bin.BIN_LIFE - timedelta(seconds=1)
        tx.get_one(Dialogue, silent).updated = now() - bin.TEMPORARY_LIFE - timedelta(seconds=1)
        tx.flush()
        assert bin.purge(tx) == 2
        assert set(tx.scalars(select(Dialogue.id))) == {kept, fresh, talking}
        assert {old, silent} <= set(tx.scalars(select(Tombstone.id)))
        assert bin.purge(tx) == 0


def test_archived_dialogues_stand_in_a_list_of_their_own(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    first, second = (chat(cast.reader, "q", "a")[0].dialogue_id for _ in range(2))
    with store.write() as tx:
        dialogues.archive_dialogue(tx, first, owner_id=cast.reader, archived=True)
        assert [row.id for row in dialogues.list_dialogues(tx, cast.reader, limit=5)] == [second]
        archived = dialogues.list_dialogues(tx, cast.reader, limit=5, archived=True)
        assert [row.id for row in archived] == [first]
        with pytest.raises(NotFound):
            dialogues.archive_dialogue(tx, first, owner_id=cast.operator, archived=False)
