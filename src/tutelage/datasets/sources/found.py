"""What a source finds in a file: items to import, rows left out on purpose, and rows that cannot be read."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tutelage.dialogue import Comparison, Dialogue

Row = dict[str, Any]
Item = Dialogue | Comparison


@dataclass(frozen=True, slots=True)
class RawRow:
    """One JSON value and where it stood: `line` as in a Problem."""

    path: Path
    line: int
    value: object


@dataclass(frozen=True, slots=True)
class Skipped:
    """Rows (or parts of one) that were understood and left out, and why."""

    reason: str
    count: int = 1


@dataclass(frozen=True, slots=True)
class Problem:
    """A row that cannot be read. `line` is that of a JSONL or CSV file, a JSON array's row, None for a file."""

    path: Path
    line: int | None
    reason: str

    @property
    def place(self) -> str:
        """File and line."""
        return str(self.path) if self.line is None else f"{self.path}:{self.line}"

    def __str__(self) -> str:
        return f"{self.place}: {self.reason}"


Found = Item | Skipped | Problem

Parser = Callable[[Row], Iterable[Item | Skipped]]
"""Turns one row into items. Raises DataError, without a place, when the row is not of the parser's format."""
