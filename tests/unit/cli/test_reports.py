"""Reports as text."""

from __future__ import annotations

from tutelage.cli.reports import plain_report


def test_what_is_missing_is_called_so() -> None:
    values = {
        "start": "",
        "parents": ["v1", "r1"],
        "left_out": {},
        "fit": None,
        "rows": [],
        "tokens": 0,
        "off": False,
    }
    assert plain_report(values).splitlines() == [
        "start: none",
        "parents: v1, r1",
        "left out: none",
        "fit: none",
        "rows: none",
        "tokens: 0",
        "off: False",
    ]
