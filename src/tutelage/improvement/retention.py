"""What training leaves behind and nobody needs any more: checkpoints of runs that were given up, broken-off drafts.

A finished run drops its checkpoints by itself. Kept for good: versions, snapshots, metrics, settings and manifests.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tutelage.errors import Conflict
from tutelage.improvement.recording import alone

DAY = 86_400.0
DRAFTS = (".publishing-*", ".writing-*", ".replaced-*")


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that may go, and its size in bytes."""

    path: Path
    size: int


def leftovers(home: Path, *, days: float) -> list[Leftover]:
    """Checkpoints of unfinished runs untouched for `days`, and drafts untouched for a day; not of runs at work."""
    now = time.time()
    found = [
        *_checkpoints(home / "runs", now - days * DAY),
        *(
            draft
            for folder in ("versions", "snapshots")
            for pattern in DRAFTS
            for draft in sorted((home / folder).glob(pattern))
            if _touched(draft) < now - DAY
        ),
    ]
    return [Leftover(path, _size(path)) for path in found]


def tidy(home: Path, *, days: float) -> list[Leftover]:
    """Delete the leftovers; returns what went."""
    found = leftovers(home, days=days)
    for each in found:
        shutil.rmtree(each.path, ignore_errors=True)
    return found


def _checkpoints(runs: Path, before: float) -> Iterator[Path]:
    for run in sorted(path for path in runs.glob("*") if path.is_dir()):
        checkpoints = sorted(run.glob("**/checkpoint-*"))
        if not checkpoints or max(map(_touched, checkpoints)) >= before:
            continue
        try:
            with alone(run, wait=0.0):
                yield from checkpoints
        except Conflict:
            continue


def _touched(path: Path) -> float:
    return max((each.stat().st_mtime for each in (path, *path.rglob("*"))), default=0.0)


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
