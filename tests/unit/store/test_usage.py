"""What is left for today is counted down and comes back with the next day; some are never counted."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace

import pytest

from tutelage.errors import InvalidRequest, RateLimited
from tutelage.store import Store, accounts, usage
from tutelage.store.usage import ChatSettings


def test_without_a_limit_nobody_counts(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        reader = accounts.get_user(tx, cast.reader)
        assert usage.chat_settings(tx) == ChatSettings()
        assert usage.count_answers(tx, reader) is None
        assert usage.remaining(tx, reader) is None


def test_a_limit_is_counted_down_and_the_next_day_begins_anew(
    store: Store, cast: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(usage, "now", lambda: datetime(2026, 3, 1, 23, 0, tzinfo=UTC))
    with store.write() as tx:
        usage.change_chat_settings(tx, ChatSettings(user_limit=2, guest_limit=0))
        reader, guest = accounts.get_user(tx, cast.reader), accounts.create_guest(tx)
        assert usage.remaining(tx, reader) == 2
        assert [usage.count_answers(tx, reader) for _ in range(2)] == [1, 0]
        with pytest.raises(RateLimited) as refused:
            usage.count_answers(tx, reader)
        assert refused.value.retry_after == 3600
        with pytest.raises(RateLimited):
            usage.count_answers(tx, guest)
        for name in (cast.trainer, cast.operator):
            assert usage.count_answers(tx, accounts.get_user(tx, name)) is None
        monkeypatch.setattr(usage, "now", lambda: datetime(2026, 3, 2, 0, 0, tzinfo=UTC))
        assert usage.count_answers(tx, reader) == 1


@pytest.mark.parametrize(
    "wrong", [{"guest_limit": -1}, {"user_limit": -1}, {"guest_storage": -1}, {"answers_at_once": 0}]
)
def test_a_limit_below_nothing_is_refused(store: Store, wrong: dict[str, int]) -> None:
    with store.write() as tx, pytest.raises(InvalidRequest):
        usage.change_chat_settings(tx, ChatSettings(**wrong))
