"""Snapshots: folders that models train on and that never change, named by the hash of their content.

    snapshots/HASH/manifest.json           hash, counts by source, annotators' reliability, how it can be split, SHA-256
                                           of each file
    snapshots/HASH/demonstrations.jsonl    {id, group, source, author, messages}
    snapshots/HASH/comparisons.jsonl       {id, group, source, author, prompt, candidates, preferences}
    snapshots/HASH/prompts.jsonl           {id, group, source, author, messages}

Lines are sorted by content, and row ids and groups take no part in the hash: the same texts by the same authors
give the same hash, in whatever order they came. Whenever a snapshot is taken, older ones lose the lines whose rows
have been deleted or are no longer consented to; nothing else ever changes in them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import DataError, Sentence
from tutelage.store.database import Store
from tutelage.store.export import streams
from tutelage.store.export.erasure import FORGOTTEN, MANIFEST, forget, replace_folder
from tutelage.store.export.groups import Groups, group_rows
from tutelage.store.labelling.reliability import reliability_weights
from tutelage.store.tables import SnapshotRow

FORMAT = 1
_HASH_LENGTH = 16


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot on disk. `counts` is {stream: {source: rows}}."""

    id: str
    hash: str
    path: Path
    counts: dict[str, dict[str, int]]


@dataclass(frozen=True, slots=True)
class _Lines:
    """One file's lines, sorted by content, and how many came from each source."""

    keys: list[str]
    text: bytes
    counts: dict[str, int]

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.text).hexdigest()


def snapshot(store: Store, home: Path, *, sources: Collection[str] | None = None) -> Snapshot:
    """Write what may be learnt from now into `home/snapshots/HASH`; the same rows give the same snapshot.

    `sources` as in the streams. Raises DataError when there is nothing to write, or no room for it.
    """
    with store.read() as tx:
        found: dict[str, list[Dialogue] | list[Comparison]] = {
            "demonstrations": list(streams.demonstrations(tx, sources=sources)),
            "comparisons": list(streams.comparisons(tx, sources=sources)),
            "prompts": list(streams.prompts(tx, sources=sources)),
        }
        reliability = reliability_weights(tx)
    groups = group_rows([row for rows in found.values() for row in rows])
    files = {name: _lines(rows, groups) for name, rows in found.items()}
    if not any(lines.keys for lines in files.values()):
        hint = "Import data (`tutelage import`), write demonstrations, or ask people to consent."
        raise DataError("There is nothing to learn from yet.", hint=hint)
    hash_ = _hash(files)
    folder = Path(home) / "snapshots" / hash_
    counts = {name: lines.counts for name, lines in files.items()}
    try:
        forget(store, folder.parent)
        about = {"hash": hash_, "counts": counts, "sources": _sorted(sources), "reliability": reliability}
        about |= {"split": groups.report()}
        _write(folder, files, about)
    except OSError as error:
        raise DataError(
            Sentence("The snapshot cannot be written: {error}.", error=error.strerror), path=folder
        ) from error
    with store.write() as tx:
        row = tx.scalar(select(SnapshotRow).where(SnapshotRow.hash == hash_)) or SnapshotRow(hash=hash_)
        row.path, row.counts, row.sources = str(folder), counts, _sorted(sources)
        tx.add(row)
        tx.flush()
    return Snapshot(row.id, hash_, folder, counts)


def list_snapshots(tx: Session) -> Sequence[SnapshotRow]:
    """Newest first."""
    return tx.scalars(select(SnapshotRow).order_by(SnapshotRow.id.desc())).all()


def _lines(items: Iterable[Dialogue | Comparison], groups: Groups) -> _Lines:
    rows, counts = [], Counter[str]()
    for item in items:
        fields = asdict(item)
        name = fields.pop("id")
        fields.pop("group")
        rows.append((_json(fields), name, groups.of(item)))
        counts[item.source] += 1
    rows.sort()
    text = "".join(
        f'{{"id":{json.dumps(name)},"group":{json.dumps(group)},{key[1:]}\n' for key, name, group in rows
    ).encode()
    return _Lines([key for key, _, _ in rows], text, dict(sorted(counts.items())))


def _json(fields: dict[str, Any]) -> str:
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":"))


def _hash(files: dict[str, _Lines]) -> str:
    digest = hashlib.sha256()
    for name, lines in files.items():
        digest.update(f"{name} {len(lines.keys)}\n".encode())
        for key in lines.keys:
            digest.update(f"{key}\n".encode())
    return digest.hexdigest()[:_HASH_LENGTH]


def _write(folder: Path, files: dict[str, _Lines], manifest: dict[str, Any]) -> None:
    """Make the whole folder beside its place and move it there; an equal one that is there stays."""
    if _whole(folder):
        return
    digests = {f"{name}.jsonl": lines.digest for name, lines in files.items()}
    manifest = {"format": FORMAT, "created": datetime.now(UTC).isoformat(), **manifest, "files": digests}
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = Path(tempfile.mkdtemp(prefix=".writing-", dir=folder.parent))
    try:
        for name, lines in files.items():
            _write_file(draft / f"{name}.jsonl", lines.text)
        _write_file(draft / MANIFEST, json.dumps(manifest, ensure_ascii=False, indent=2).encode())
        replace_folder(draft, folder)
    except OSError:
        if not _whole(folder):  # else somebody else wrote the same snapshot just now
            raise
    finally:
        shutil.rmtree(draft, ignore_errors=True)


def _whole(folder: Path) -> bool:
    """Whether a snapshot is there and has lost nothing since it was written."""
    try:
        return FORGOTTEN not in json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _write_file(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def _sorted(sources: Collection[str] | None) -> list[str] | None:
    return None if sources is None else sorted(set(sources))
