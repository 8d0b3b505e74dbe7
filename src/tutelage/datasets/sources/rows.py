"""Rows out of files: JSONL, JSON arrays, CSV, each of them also gzipped, or a folder of such files."""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from tutelage.datasets.sources.csv_rows import read_csv
from tutelage.datasets.sources.found import Problem, RawRow
from tutelage.errors import DataError

CSV = (".csv", ".csv.gz")
SUFFIXES = (".json", ".jsonl", ".json.gz", ".jsonl.gz", *CSV)
MAX_LINE = 64 * 2**20
MAX_ARRAY = 512 * 2**20
GZIP = b"\x1f\x8b"
FOREIGN = {
    b"PAR1": "a Parquet file",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow file",
    b"PK\x03\x04": "an Excel or ZIP file",
    b"\x28\xb5\x2f\xfd": "a file packed by Zstandard",
    b"\xff\xfe": "a text in UTF-16",
    b"\xfe\xff": "a text in UTF-16",
}
"""How files begin that are no rows of text in UTF-8."""


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
            "the folder holds no data files",
            path=path,
            hint=f"Looked for {', '.join(SUFFIXES)} directly in it.",
        )
    return found


def _is_data(file: Path) -> bool:
    return file.name.endswith(SUFFIXES) and not file.name.startswith(".") and file.is_file()


def read_rows(path: Path) -> Iterator[RawRow | Problem]:
    """Every row of one file, in order; a row that is not valid JSON comes as a Problem.

    CSV is known by its name. Of other files, one whose first character is `[` is one array of rows; any other
    holds a row a line. Blank lines are passed over. Raises DataError when the file cannot be opened, or is of a kind
    that is not read.
    """
    try:
        stream = _open(path)
    except OSError as error:
        raise DataError(
            f"cannot be opened: {error.strerror}", path=path, hint="Check its permissions."
        ) from error
    with stream:
        try:
            yield from _reader(path, stream)(path, stream)
        except (OSError, EOFError, zlib.error) as error:
            yield Problem(path, None, f"reading broke off: {error}")


def _open(path: Path) -> BinaryIO:
    """The file, unpacked if it is gzipped, whatever its name."""
    with path.open("rb") as stream:
        packed = path.suffix == ".gz" or stream.read(len(GZIP)) == GZIP
    return cast(BinaryIO, gzip.GzipFile(path)) if packed else path.open("rb")


def _reader(path: Path, stream: BinaryIO) -> Callable[[Path, BinaryIO], Iterator[RawRow | Problem]]:
    """How these rows are written. Raises DataError for what is no text, or in another encoding."""
    start = stream.read(4096)
    stream.seek(0)
    if kind := next((kind for magic, kind in FOREIGN.items() if start.startswith(magic)), None):
        hint = "Save it as JSON lines or as CSV, in UTF-8."
        raise DataError(f"{kind}, which is not read", path=path, hint=hint)
    if path.name.lower().endswith(CSV):
        return read_csv
    return _array if start.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"[") else _lines


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
        elif number == 1 and line.strip() == b"{":
            yield Problem(path, number, "an object over several lines; `jq -c .` writes one a line")
            return
        elif line.strip():
            yield _parse_line(path, number, line)


def _pass_over_line(stream: BinaryIO, part: bytes) -> None:
    while part and not part.endswith(b"\n"):
        part = stream.readline(MAX_LINE)


def _parse_line(path: Path, number: int, line: bytes) -> RawRow | Problem:
    try:
        text = line.rstrip().removesuffix(b",").decode("utf-8-sig" if number == 1 else "utf-8")
        return RawRow(path, number, json.loads(text))
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
