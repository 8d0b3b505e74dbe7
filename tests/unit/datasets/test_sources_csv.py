"""Rows out of CSV files as spreadsheets write them."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from tutelage.datasets.sources import Problem, RawRow
from tutelage.datasets.sources.rows import read_rows

HI, HO = {"prompt": "Hi", "completion": "Ho"}, {"prompt": "A, b;\n\tc", "completion": 'say "x"'}


def found(path: Path) -> list[tuple[int | None, object]]:
    return [(row.line, row.value if isinstance(row, RawRow) else row.reason) for row in read_rows(path)]


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_cells_are_named_by_the_first_line(tmp_path: Path, delimiter: str, end: str, mark: str) -> None:
    lines = ["prompt{0} completion", "Hi{0}Ho", "", '"A, b;\n\tc"{0}"say ""x"""', "{0}"]
    path = tmp_path / "a.csv"
    path.write_bytes((mark + end.join(lines).format(delimiter)).encode())
    assert found(path) == [(2, HI), (4, HO)]
    packed = tmp_path / "b.CSV.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert found(packed) == found(path)


def test_a_row_with_too_many_cells_is_a_problem_and_a_short_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt,completion\nHi,Ho,Hm\nHi\nHi,Ho\n")
    assert found(path) == [(2, "3 cells in 2 columns"), (3, {"prompt": "Hi"}), (4, HI)]


def test_what_cannot_be_read_ends_with_a_problem_at_its_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes("prompt,completion\nHi,Ho\ncafé,Ho\n".encode("latin-1"))
    assert found(path) == [(2, HI), (3, 'not UTF-8; spreadsheets save it as "CSV UTF-8"')]
    path.write_text('prompt,completion\nHi,Ho\n"Hi,Ho\nHi,Ho\n')
    first, last = read_rows(path)
    assert isinstance(last, Problem)
    assert (first.line, last.line, last.reason) == (2, 3, "not valid CSV: unexpected end of data")


def test_a_long_cell_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("prompt\n" + "x" * 1_000_000)
    assert found(path) == [(2, {"prompt": "x" * 1_000_000})]
