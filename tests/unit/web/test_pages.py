"""The small decisions behind the pages."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, timedelta
from types import SimpleNamespace
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from starlette.requests import Request

from tutelage.store.labelling import provenance
from tutelage.web import icons, metrics
from tutelage.web.catalogue import translator
from tutelage.web.pages.sign_in import local_path
from tutelage.web.pages.versions import figures
from tutelage.web.templating import HERE, by_day, when, zone
from tutelage.web.views import message_view

TAIPEI = ZoneInfo("Asia/Taipei")


def test_chats_are_grouped_by_the_readers_day() -> None:
    today = date(2026, 3, 2)
    late_yesterday = datetime(2026, 3, 1, 16, 30, tzinfo=UTC)  # half past midnight in Taipei
    moments = [late_yesterday, *(late_yesterday - timedelta(days=days) for days in (1, 4, 20, 90))]
    rows: Any = [SimpleNamespace(updated=moment) for moment in reversed(moments)]
    groups = by_day(rows, today=today, zone=TAIPEI, t=translator("en"))
    assert [label for label, _ in groups] == [
        "Today",
        "Yesterday",
        "Last 7 days",
        "February 2026",
        "December 2025",
    ]
    assert [row.updated for _, group in groups for row in group] == moments


@pytest.mark.parametrize(
    ("cookie", "expected"),
    [
        ("Asia/Taipei", "Asia/Taipei"),
        ("../../etc/passwd", "UTC"),
        ("Nowhere/None", "UTC"),
        ("", "UTC"),
        ("x" * 300, "UTC"),
    ],
)
def test_a_time_zone_that_is_none_is_utc(cookie: str, expected: str) -> None:
    headers = [(b"cookie", f"timezone={cookie}".encode())]
    assert zone(Request({"type": "http", "headers": headers})).key == expected


def test_a_moment_is_shown_in_the_readers_zone() -> None:
    assert when(datetime(2026, 3, 1, 16, 30, tzinfo=UTC), TAIPEI) == "2026-03-02 00:30"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/write?draft=1", "/write?draft=1"),
        ("//evil", "/"),
        ("/\\evil", "/"),
        ("https://evil", "/"),
        ("/a\nb", "/"),
        ("", "/"),
    ],
)
def test_only_paths_of_this_server_are_gone_to(path: str, expected: str) -> None:
    assert local_path(path) == expected


@pytest.mark.parametrize(
    ("content", "taken", "kind", "ratio"),
    [
        ("one two three four", None, "human", None),
        (" one two three four ", "one two three four", "suggested", 0.0),
        ("one two three five", "one two three four", "edited", 0.25),
        ("quite another thing altogether", "one two three four", "edited", 1.0),
    ],
)
def test_provenance_says_how_much_of_a_suggestion_was_changed(
    content: str, taken: str | None, kind: str, ratio: float | None
) -> None:
    found = provenance(content, ["one two three four"], taken)
    assert (found["kind"], found["edit_ratio"]) == (kind, ratio)


def test_figures_are_the_numbers_of_a_report_in_its_order() -> None:
    refusal = {"rate": 0.91234, "n": 1200, "tokens": 1234.56, "note": "x", "good": True}
    report = {"refusal": refusal, "list": [1], "win_rate": {"value": 0.5, "low": 0.41, "high": 0.59}}
    assert figures(report) == [
        ("refusal.rate", "0.912"),
        ("refusal.n", "1,200"),
        ("refusal.tokens", "1,235"),
        ("win_rate", "0.5 (0.41 – 0.59)"),
    ]
    named = [metrics.named(name, translator("zh-Hant")) for name, _ in figures(report)]
    assert named == ["refusal · rate", "refusal · n", "refusal · tokens", "勝率"]
    counted = {"accuracy": {"value": 0.8, "low": 0.7, "high": 0.9, "pairs": 94}}
    assert figures(counted) == [("accuracy", "0.8 (0.7 – 0.9)"), ("accuracy.pairs", "94")]
    unknown = {"accuracy": {"value": None, "low": None, "high": None, "pairs": 0}}
    assert figures(unknown) == [("accuracy.pairs", "0")]


def message(**fields: Any) -> Any:
    row = {
        "id": "b",
        "parent_id": None,
        "role": "assistant",
        "content": "*hi*",
        "status": "complete",
        "provenance": None,
    }
    return SimpleNamespace(
        **row | {"finish_reason": "stop", "model_version": "v1", "filter_verdict": None} | fields
    )


def test_branches_know_their_neighbours() -> None:
    view = message_view(message(), ["a", "b", "c"], None)
    assert (view.previous, view.place, view.next) == ("a", 2, "c")
    alone = message_view(message(), ["b"], None)
    assert (alone.previous, alone.place, alone.next) == (None, 1, None)


def test_only_finished_answers_are_rendered() -> None:
    assert message_view(message(), ["b"], None).html == "<p><em>hi</em></p>"
    assert message_view(message(status="running"), ["b"], None).html == ""
    assert message_view(message(role="user"), ["b"], None).html == ""


def test_a_blocked_answer_is_hidden_and_a_blocked_question_is_not() -> None:
    assert message_view(message(status="blocked"), ["b"], None).hidden
    assert message_view(message(filter_verdict={"state": "blocked"}), ["b"], None).hidden
    assert not message_view(message(role="user", status="blocked"), ["b"], None).hidden


def test_a_form_outside_of_a_dialog_does_nothing_by_itself() -> None:
    """Otherwise a browser sends it, its words in the address, when its button is quicker than its script."""
    forms = [
        form
        for file in (HERE / "templates").glob("*.html")
        for form in re.findall(r"<form\b.*", file.read_text(encoding="utf-8"))
    ]
    assert len(forms) > 30
    assert [form for form in forms if not form.startswith('<form method="dialog"')] == []


def test_an_icon_must_exist() -> None:
    assert 'href="#icon-copy"' in icons.icon("copy")
    with pytest.raises(KeyError):
        icons.icon("no-such-icon")
