"""Taking out of old snapshots what was deleted since, or what is no longer consented to."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tutelage.store.database import Store
from tutelage.store.privacy import withdrawn

MANIFEST = "manifest.json"
FORGOTTEN = "forgotten"


def forget(store: Store, snapshots: Path) -> int:
    """Rewrite each snapshot without the lines that may not be used any more; returns how many went.

    A snapshot keeps its name and says in its manifest how many lines it has lost.
    """
    folders = [file.parent for file in snapshots.glob(f"[!.]*/{MANIFEST}")]
    if not folders:
        return 0
    with store.read() as tx:
        ids = withdrawn(tx)
    return sum(_clear(folder, ids) for folder in folders)


def replace_folder(draft: Path, folder: Path) -> None:
    """Put a finished folder in the place of an older one."""
    with tempfile.TemporaryDirectory(prefix=".replaced-", dir=folder.parent) as old:
        if folder.exists():
            os.rename(folder, Path(old) / folder.name)
        os.rename(draft, folder)


def _clear(folder: Path, ids: set[str]) -> int:
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError:
        return 0  # no reader accepts this folder any more
    lines = {file.name: file.read_bytes().splitlines(keepends=True) for file in folder.glob("*.jsonl")}
    kept = {name: [line for line in rows if _id(line) not in ids] for name, rows in lines.items()}
    lost = sum(len(lines[name]) - len(kept[name]) for name in lines)
    if lost:
        manifest[FORGOTTEN] = manifest.get(FORGOTTEN, 0) + lost
        _rewrite(folder, {name: b"".join(rows) for name, rows in kept.items()}, manifest)
    return lost


def _rewrite(folder: Path, files: dict[str, bytes], manifest: dict[str, Any]) -> None:
    draft = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        for name, content in files.items():
            (draft / name).write_bytes(content)
            manifest["files"][name] = hashlib.sha256(content).hexdigest()
        (draft / MANIFEST).write_text(json.dumps(manifest, ensure_ascii=False, indent=2), encoding="utf-8")
        replace_folder(draft, folder)
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _id(line: bytes) -> str | None:
    """A line's id; None for a line that cannot be read, which stays for the reader to complain about."""
    try:
        return str(json.loads(line)["id"])
    except (ValueError, TypeError, KeyError):
        return None
