"""Rows out of files of every permitted kind, and out of broken ones."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from tutelage.datasets.sources import Problem, rows
from tutelage.datasets.sources.rows import RawRow, files, read_rows
from tutelage.errors import DataError


def values(path: Path) -> list[object]:
    return [row.value if isinstance(row, RawRow) else row.reason for row in read_rows(path)]


def test_jsonl_rows_carry_their_line_and_blank_lines_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\r\n\n  \n{"b": 2}')
    assert list(read_rows(path)) == [RawRow(path, 1, {"a": 1}), RawRow(path, 4, {"b": 2})]


def test_a_comma_behind_a_row_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1},\n{"b": 2}, \n')
    assert values(path) == [{"a": 1}, {"b": 2}]


def test_an_object_over_several_lines_is_one_problem_with_a_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{\n "a": 1\n}\n{\n "b": 2\n}\n')
    assert values(path) == ["an object over several lines; `jq -c .` writes one a line"]


def test_an_array_gives_its_rows_whatever_the_name(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('\n [{"a": 1},\n\n {"b": 2}]\n')
    assert list(read_rows(path)) == [RawRow(path, 1, {"a": 1}), RawRow(path, 2, {"b": 2})]


def test_json_with_a_row_a_line_is_read_by_line(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('{"a": 1}\n{"b": 2}\n')
    assert values(path) == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize("content", ['{"a": "é"}\n', '[{"a": "é"}]'])
def test_a_byte_order_mark_and_gzip_are_no_obstacle(tmp_path: Path, content: str) -> None:
    for name in ("a.jsonl.gz", "a.jsonl"):
        path = tmp_path / name
        path.write_bytes(gzip.compress(content.encode("utf-8-sig")))
        assert values(path) == [{"a": "é"}]


@pytest.mark.parametrize(
    ("start", "kind"),
    [
        (b"PAR1", "Parquet"),
        (b"ARROW1\0\0", "Arrow"),
        (b"PK\x03\x04", "Excel"),
        ('{"a": 1}'.encode("utf-16"), "UTF-16"),
        (b"\x28\xb5\x2f\xfd", "Zstandard"),
    ],
)
def test_files_of_other_kinds_are_called_by_their_name(tmp_path: Path, start: bytes, kind: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(start + b"\x80\n" * 20)
    with pytest.raises(DataError, match=f"{kind}.*, which is not read") as caught:
        list(read_rows(path))
    assert "JSON lines or as CSV" in caught.value.hint


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"a": 1', "not valid JSON: Expecting ',' delimiter at column 8"),
        (b'{"a": "\x00"}', "not valid JSON: Invalid control character at column 8"),
        (b'{"a": "\xff"}', "not UTF-8: invalid start byte at byte 8"),
        (b"[" * 100_000, "not readable: nested too deeply"),
        (b'{"a": ' * 100_000, "not readable: nested too deeply"),
        (b"1" * 5000, "not readable: a number with too many digits"),
    ],
)
def test_a_broken_line_is_a_problem_and_the_next_is_read(tmp_path: Path, line: bytes, reason: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b'\n{"b": 2}\n')
    assert list(read_rows(path)) == [
        RawRow(path, 1, {"a": 1}),
        Problem(path, 2, reason),
        RawRow(path, 3, {"b": 2}),
    ]


def test_a_line_over_the_limit_is_passed_over_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows, "MAX_LINE", 100)
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps("x" * 350) + '\n{"b": 2}\n')
    assert [row.line for row in read_rows(path)] == [1, 2]
    assert values(path) == ["a line of more than 0 MiB", {"b": 2}]


def test_a_message_of_ten_megabytes_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps({"a": "x" * 10_000_000}))
    assert values(path) == [{"a": "x" * 10_000_000}]


def test_an_array_that_is_too_large_or_broken_is_one_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.json"
    path.write_text('[{"a": 1},\n{"b": }]')
    assert list(read_rows(path)) == [
        Problem(path, 2, "not valid JSON: Expecting value at column 7 of this line")
    ]
    path.write_text("[" * 100_000)
    assert values(path) == ["not readable: nested too deeply"]
    monkeypatch.setattr(rows, "MAX_ARRAY", 5)
    assert values(path) == ["an array of more than 0 MiB; write one row a line instead (JSONL)"]


def test_a_gzip_file_that_breaks_off_is_a_problem_after_what_could_be_read(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"a": 1}\n' * 1000)[:-10])
    *_, last = read_rows(path)
    assert isinstance(last, Problem)
    assert last.reason.startswith("reading broke off")
    header = gzip.compress(b"")[:10]
    for content in (b'{"a": 1}\n', header + b"\xff" * 20):
        path.write_bytes(content)
        assert isinstance(list(read_rows(path))[-1], Problem)


def test_a_folder_stands_for_the_data_files_in_it_by_name(tmp_path: Path) -> None:
    for name in ("b.jsonl", "a.json.gz", "README.md", "c.csv", "c.txt", "._b.jsonl"):
        (tmp_path / name).touch()
    (tmp_path / "d.json").mkdir()
    assert [file.name for file in files(tmp_path)] == ["a.json.gz", "b.jsonl", "c.csv"]


def test_no_file_is_an_error_with_a_hint(tmp_path: Path) -> None:
    for path, message in [(tmp_path / "none.jsonl", "no such file"), (tmp_path, "no data files")]:
        with pytest.raises(DataError, match=message) as caught:
            files(path)
        assert caught.value.hint
    with pytest.raises(DataError, match="neither a file nor a folder"):
        files(Path("/dev/null"))


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be opened: Is a directory"):
        list(read_rows(tmp_path))
