"""Folders that are there whole or not at all: written beside their place, then renamed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tutelage.errors import Conflict


@contextmanager
def whole_folder(target: Path, *, replace: bool = False) -> Iterator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends, its files on the disk.

    When the block raises, nothing is left of it; with `replace`, an older folder stays as it was until then.
    Raises Conflict when `target` is there and is not to be replaced; OSErrors are the caller's to explain.
    """
    if not replace:
        refuse_existing(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        yield draft
        for file in sorted(draft.rglob("*")):
            sync(file)
        sync(draft)
        if replace and target.exists():
            shutil.rmtree(target)
        os.rename(draft, target)
        sync(target.parent)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def refuse_existing(target: Path) -> None:
    """Raises Conflict when something is at `target` already."""
    if target.exists():
        raise Conflict("there is something already", where=str(target), hint="name a new folder")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Of all that ask for the same lock file, in this process and in others, one at a time is let in."""
    with file.open("a") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def sync(path: Path) -> None:
    """Make sure that a file, or the list of a folder's files, has reached the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
