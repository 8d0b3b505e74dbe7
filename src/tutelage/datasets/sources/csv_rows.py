"""Rows out of CSV files, as spreadsheets write them: the first line names the columns, each cell is text."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tutelage.datasets.sources.found import Problem, RawRow

DELIMITERS = ",;\t"
MAX_CELL = 64 * 2**20


def read_csv(path: Path, stream: BinaryIO) -> Iterator[RawRow | Problem]:
    """Every row, in order; an empty cell is empty text. Cells are divided as those of the first line seem to be."""
    csv.field_size_limit(MAX_CELL)
    head = stream.readline().decode("utf-8-sig", "replace")
    stream.seek(0)
    reader = csv.reader(_lines(stream), delimiter=max(DELIMITERS, key=head.count), strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            if names is None:
                names = [cell.strip() for cell in cells]
            elif len(cells) > len(names):
                yield Problem(path, line, f"{len(cells)} cells in {len(names)} columns")
            elif any(cells):
                yield RawRow(path, line, dict(zip(names, cells, strict=False)))
            line = reader.line_num + 1
    except UnicodeDecodeError:
        yield Problem(path, reader.line_num + 1, 'not UTF-8; spreadsheets save it as "CSV UTF-8"')
    except csv.Error as error:
        yield Problem(path, line, f"not valid CSV: {error}")


def _lines(stream: BinaryIO) -> Iterator[str]:
    for number, line in enumerate(stream):
        yield line.decode("utf-8-sig" if number == 0 else "utf-8")
