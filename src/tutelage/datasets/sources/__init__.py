"""Importers: files in the forms that others publish, turned into dialogues and comparisons.

A source is a parser of one row (a module here for each form); `read` does what they share: files, places and
origins.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from tutelage.datasets.sources import alpaca, hh, messages, oasst, ranked
from tutelage.datasets.sources.fields import kind
from tutelage.datasets.sources.found import Found, Item, Parser, Problem, RawRow, Row, Skipped
from tutelage.datasets.sources.rows import files, read_rows
from tutelage.errors import DataError

__all__ = [
    "Found",
    "Item",
    "Parser",
    "Problem",
    "Row",
    "Skipped",
    "alpaca",
    "hh",
    "messages",
    "oasst",
    "ranked",
    "read",
    "readers",
]

PARSERS: dict[str, Parser] = {
    "messages": messages.parse,
    "alpaca": alpaca.parse,
    "oasst": oasst.parse,
    "hh": hh.parse,
    "ranked": ranked.parse,
}
REPEATED = "the same as one before it"


def read(path: Path, parse: Parser, *, source: str | None, default_source: str) -> Iterator[Found]:
    """Everything that `parse` finds in a file or a folder of files, in order, each item once.

    A row gives all of its items or one Problem. Items take `source`; without it the one that their row names,
    or else `default_source`. Raises DataError when there is no file, it cannot be opened, or it has no rows.
    """
    empty = True
    seen: set[Item] = set()
    for file in files(path):
        for row in read_rows(file):
            empty = False
            for found in [row] if isinstance(row, Problem) else _parse(row, parse):
                if isinstance(found, Skipped | Problem):
                    yield found
                    continue
                item = replace(found, source=source or found.source or default_source)
                yield Skipped(REPEATED) if item in seen else item
                seen.add(item)
    if empty:
        raise DataError(
            "there are no rows", path=path, hint="Is it the file you meant? Nothing was imported."
        )


def readers(file: Path) -> list[str]:
    """The formats that the first row of a file is read in."""
    first = next(read_rows(file))
    found = first if isinstance(first, RawRow) else None
    return [
        name for name, parse in PARSERS.items() if found and not isinstance(_parse(found, parse)[0], Problem)
    ]


def _parse(row: RawRow, parse: Parser) -> list[Item | Skipped] | list[Problem]:
    try:
        if not isinstance(row.value, dict):
            raise DataError(f"a row should be an object, not {kind(row.value)}")
        return list(parse(row.value)) or _nothing()
    except DataError as error:
        return [Problem(row.path, row.line, error.message)]


def _nothing() -> list[Item | Skipped]:
    raise DataError("there is nothing in this row")
