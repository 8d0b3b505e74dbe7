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
CHECKPOINTS = "**/checkpoint-*"
DRAFTS = (
    "versions/.publishing-*",
    "snapshots/.writing-*",
    "snapshots/.replaced-*",
    "runs/**/.weights.*",
    "runs/**/.checkpoint-*.partial",
    "runs/**/rollouts/*",
)


@dataclass(frozen=True, slots=True)
class Leftover:
    """A folder that may go, and its size in bytes."""

    path: Path
    size: int


def leftovers(home: Path, *, days: float) -> list[Leftover]:
    """Checkpoints of unfinished runs untouched for `days`, and drafts untouched for a day; not of runs at work."""
    return list(_found(home, days))


def tidy(home: Path, *, days: float) -> list[Leftover]:
    """Delete the leftovers; returns what went."""
    gone = []
    for each in _found(home, days):
        shutil.rmtree(each.path, ignore_errors=True)
        gone.append(each)
    return gone


def _found(home: Path, days: float) -> Iterator[Leftover]:
    """One after the other; while a run's checkpoints are given, nobody else takes the run up."""
    now = time.time()
    for checkpoint in _checkpoints(home / "runs", now - days * DAY):
        yield Leftover(checkpoint, _size(checkpoint))
    for draft in (draft for pattern in DRAFTS for draft in sorted(home.glob(pattern))):
        if _touched(draft) < now - DAY:
            yield Leftover(draft, _size(draft))


def _checkpoints(runs: Path, before: float) -> Iterator[Path]:
    for run in sorted(path for path in runs.glob("*") if any(path.glob(CHECKPOINTS))):
        try:
            with alone(run):
                checkpoints = sorted(run.glob(CHECKPOINTS))
                if max(map(_touched, checkpoints), default=before) < before:
                    yield from checkpoints
        except Conflict:
            continue


def _touched(path: Path) -> float:
    return max((each.stat().st_mtime for each in (path, *path.rglob("*"))), default=0.0)


def _size(path: Path) -> int:
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
