from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store import Store, reports
from tutelage.store.tables import Message

Chat = Callable[..., list[Message]]


def test_a_report_goes_to_the_operators_and_comes_back(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    [question] = chat(cast.reader, "q")
    with store.write() as tx:
        first = reports.report(tx, message_id=question.id, reporter_id=cast.reader, kind="missed")
        again = reports.report(
            tx, message_id=question.id, reporter_id=cast.reader, kind="mistake", category="hate", note="no"
        )
        assert again.id == first.id
        [row] = reports.list_reports(tx, status="open")
        assert (row.kind, row.category, row.note, row.content) == ("mistake", "hate", "no", "q")
        reports.decide_report(tx, row.id, decision="accepted", by=cast.operator)
        assert reports.list_reports(tx, status="open") == []
    with store.read() as tx:
        [mine] = reports.my_reports(tx, cast.reader)
        assert (mine.status, mine.decided_by) == ("accepted", cast.operator)
        assert mine.decided is not None
        assert reports.my_reports(tx, cast.private) == []


def test_a_decided_report_stays(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    [question] = chat(cast.reader, "q")
    mine: dict[str, Any] = {"message_id": question.id, "reporter_id": cast.reader, "kind": "missed"}
    with store.write() as tx:
        reports.decide_report(tx, reports.report(tx, **mine).id, decision="declined", by=cast.operator)
        with pytest.raises(Conflict):
            reports.report(tx, **mine)


def test_wrong_reports_and_decisions(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    [question] = chat(cast.reader, "q")
    with store.write() as tx:
        with pytest.raises(NotFound):
            reports.report(tx, message_id=question.id, reporter_id=cast.private, kind="missed")
        wrong: Any = "unsure"
        with pytest.raises(InvalidRequest):
            reports.report(tx, message_id=question.id, reporter_id=cast.reader, kind=wrong)
        row = reports.report(tx, message_id=question.id, reporter_id=cast.reader, kind="missed")
        with pytest.raises(InvalidRequest):
            reports.decide_report(tx, row.id, decision=wrong, by=cast.operator)
        with pytest.raises(NotFound):
            reports.decide_report(tx, "none", decision="accepted", by=cast.operator)
