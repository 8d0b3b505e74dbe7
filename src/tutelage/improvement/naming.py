"""Names of runs: a kind and a number, `sft-0001`, or what somebody called them. No number is given twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.store import runs

if TYPE_CHECKING:
    from tutelage.improvement.stages import Installation

RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def numbered(folder: Path, kind: str) -> list[Path]:
    """The runs of a kind in the order of their numbers. What somebody named (`sft-0001-old`) has none."""
    found = {number_of(path.name, kind): path for path in folder.glob(f"{kind}-*")}
    return [path for number, path in sorted(found.items()) if number]


def new_run(place: Installation, kind: str) -> Path:
    """An empty folder under the next number, this process's alone.

    A run whose folder is gone keeps its number: versions and rows in the store name it still.
    """
    folder = place.home / "runs"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with place.store.read() as tx:
        names = {*runs.run_names(tx), *(path.name for path in folder.iterdir())}
    names |= {version.run or "" for version in place.registry.survey()[0]}
    number = max(number_of(name, kind) for name in {"", *names})
    while True:
        number += 1
        made = folder / f"{kind}-{number:04d}"
        try:
            made.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return made


def number_of(name: str, kind: str) -> int:
    """The number in a run's name; 0 for a name of another form."""
    match = re.fullmatch(rf"{kind}-(\d{{1,9}})", name, re.ASCII)
    return int(match[1]) if match else 0
