"""JSON rows out of files: JSONL, JSON arrays, either one gzipped, or a folder of such files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from tutelage.datasets.sources.found import Problem
from tutelage.errors import DataError

SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz")
MAX_LINE = 64 * 2**20
MAX_ARRAY = 512 * 2**20


@dataclass(frozen=True, slots=True)
class RawRow:
    """One JSON value and where it stood."""

    path: Path
    line: int
    value: object


def files(path: Path) -> list[Path]:
    """The data files that `path` stands for: itself, or those directly in the folder, by name.

    Raises DataError when there are none.
    """
    if path.is_file():
        return [path]
    if not path.exists():
        raise DataError(
            "there is no such file", path=path, hint="Check the path; a folder of files works too."
        )
    if not path.is_dir():
        raise DataError(
            "this is neither a file nor a folder", path=path, hint="Save its content to a file first."
        )
    found = sorted(file for file in path.iterdir() if _is_data(file))
    if not found:
        raise DataError(
            "the folder holds no data files", path=path, hint=f"Looked for {', '.join(SUFFIXES)}."
        )
    return found


def _is_data(file: Path) -> bool:
    return file.name.endswith(SUFFIXES) and not file.name.startswith(".") and file.is_file()


def read_rows(path: Path) -> Iterator[RawRow | Problem]:
    """Every row of one file, in order; a row that is not valid JSON comes as a Problem.

    A file whose first character is `[` is one array of rows; any other holds a row a line. Blank lines are
    passed over. Raises DataError when the file cannot be opened.
    """
    try:
        stream = _open(path)
    except OSError as error:
        raise DataError(
            f"cannot be opened: {error.strerror}", path=path, hint="Check its permissions."
        ) from error
    with stream:
        try:
            yield from _array(path, stream) if _is_array(stream) else _lines(path, stream)
        except (OSError, EOFError, zlib.error) as error:
            yield Problem(path, None, f"reading broke off: {error}")


def _open(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.GzipFile(path)) if path.suffix == ".gz" else path.open("rb")


def _is_array(stream: BinaryIO) -> bool:
    start = stream.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    stream.seek(0)
    return start.startswith(b"[")


def _array(path: Path, stream: BinaryIO) -> Iterator[RawRow | Problem]:
    data = stream.read(MAX_ARRAY + 1)
    if len(data) > MAX_ARRAY:
        yield Problem(
            path, None, f"an array of more than {MAX_ARRAY >> 20} MiB; write one row a line instead (JSONL)"
        )
        return
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except json.JSONDecodeError as error:
        yield Problem(path, error.lineno, f"not valid JSON: {error.msg} at column {error.colno} of this line")
    except (ValueError, RecursionError) as error:
        yield Problem(path, None, _why(error))
    else:
        for number, value in enumerate(rows, start=1):
            yield RawRow(path, number, value)


def _lines(path: Path, stream: BinaryIO) -> Iterator[RawRow | Problem]:
    number = 0
    while line := stream.readline(MAX_LINE + 1):
        number += 1
        if len(line) > MAX_LINE:
            _pass_over_line(stream, line)
            yield Problem(path, number, f"a line of more than {MAX_LINE >> 20} MiB")
        elif line.strip():
            yield _parse_line(path, number, line)


def _pass_over_line(stream: BinaryIO, part: bytes) -> None:
    while part and not part.endswith(b"\n"):
        part = stream.readline(MAX_LINE)


def _parse_line(path: Path, number: int, line: bytes) -> RawRow | Problem:
    try:
        return RawRow(path, number, json.loads(line.rstrip().decode("utf-8-sig" if number == 1 else "utf-8")))
    except (ValueError, RecursionError) as error:
        return Problem(path, number, _why(error))


def _why(error: ValueError | RecursionError) -> str:
    """The reason in words, without the data that a decoder's own message may quote at length."""
    if isinstance(error, json.JSONDecodeError):
        return f"not valid JSON: {error.msg.removesuffix(' at')} at column {error.colno}"
    if isinstance(error, UnicodeDecodeError):
        return f"not UTF-8: {error.reason} at byte {error.start + 1}"
    if isinstance(error, RecursionError):
        return "not readable: nested too deeply"
    return "not readable: a number with too many digits"
