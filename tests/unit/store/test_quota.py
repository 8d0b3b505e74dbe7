"""How much text a guest may keep."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tutelage.store import Store, accounts, dialogues, feedback, quota, reports, shares, usage
from tutelage.store.usage import ChatSettings


def test_all_that_is_kept_of_a_person_counts(store: Store) -> None:
    with store.write() as tx:
        guest = accounts.create_guest(tx)
        assert quota.kept(tx, guest.id) == 0
        row = dialogues.create_dialogue(tx, guest.id)
        asked = dialogues.add_message(
            tx, row.id, parent_id=None, role="user", content="中文?", author_kind="human"
        )
        answer = dialogues.add_message(
            tx, row.id, parent_id=asked.id, role="assistant", content="So.", author_kind="model"
        )
        assert quota.kept(tx, guest.id) == 6
        feedback.rate(tx, message_id=answer.id, rater_id=guest.id, verdict="down", note="no", ideal="better")
        rated = quota.kept(tx, guest.id)
        assert rated > 6 + 8 + 6, "the path is copied"
        reports.report(tx, message_id=answer.id, reporter_id=guest.id, kind="missed", note="1234")
        assert quota.kept(tx, guest.id) == rated + 3 + 4
        shares.share(tx, row.id, owner_id=guest.id)
        assert quota.kept(tx, guest.id) > rated + 7 + 6
        dialogues.delete_dialogues(tx, guest.id)
        assert quota.kept(tx, guest.id) == 0


def test_a_guest_who_is_full_is_refused_and_nobody_else(
    store: Store, cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(quota, "MILLION", 4)
    with store.write() as tx:
        usage.change_chat_settings(tx, ChatSettings(guest_storage=2))
        guest, reader = accounts.create_guest(tx), accounts.get_user(tx, cast.reader)
        for person in (guest, reader):
            row = dialogues.create_dialogue(tx, person.id)
            for content in ("1234567", "8"):
                quota.check_room(tx, person)
                dialogues.add_message(
                    tx, row.id, parent_id=None, role="user", content=content, author_kind="human"
                )
        quota.check_room(tx, reader)
        with pytest.raises(quota.StorageFull, match="2 million"):
            quota.check_room(tx, guest)
        usage.change_chat_settings(tx, ChatSettings(guest_storage=None))
        quota.check_room(tx, guest)
