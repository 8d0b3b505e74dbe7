"""Files to read and ways to read them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.datasets.sources import Found, Item, Parser, Problem, Skipped, read

Write = Callable[..., Path]


@pytest.fixture
def write_rows(tmp_path: Path) -> Write:
    """Write rows as JSONL into a new file and return its path."""

    def write(*rows: Any, name: str = "rows.jsonl") -> Path:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        return path

    return write


class Read:
    """What a parser found in rows, sorted by kind."""

    def __init__(self, found: list[Found]) -> None:
        self.items: list[Item] = [one for one in found if not isinstance(one, Skipped | Problem)]
        self.skipped = {one.reason: one.count for one in found if isinstance(one, Skipped)}
        self.problems = [one.reason for one in found if isinstance(one, Problem)]


@pytest.fixture
def read_rows(write_rows: Write) -> Callable[..., Read]:
    """Write rows to a file and read them back with a parser."""

    def through(parse: Parser, *rows: Any) -> Read:
        return Read(list(read(write_rows(*rows), parse, source="", default_source="here")))

    return through
