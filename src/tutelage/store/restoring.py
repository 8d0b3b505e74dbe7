"""A backup put in the place of the database, while others may be using it."""

from __future__ import annotations

import os
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import delete, insert, select
from sqlalchemy.orm import Session

from tutelage.errors import DataError
from tutelage.store import copying, migrations, waiting
from tutelage.store.database import Store
from tutelage.store.sqlite import backup, errors_for_people, open_database
from tutelage.store.tables import CampaignEntry, Demonstration, Dialogue, Pick, Ranking, Rating, Tombstone

_Tombstones = Sequence[tuple[str, datetime]]


def restore(source: Path, target: Path) -> Path | None:
    """Give the database `target` the content of the backup `source`; returns where its old content is kept.

    Everybody sees the old content or the new one, never a part, and a crash leaves the old one. What was deleted
    since the backup was made stays deleted. An older schema is migrated first. Raises DataError when `source` is not
    a whole database of this program, or something cannot be written; Unavailable when others do not let go in time.
    """
    _check(source)
    with errors_for_people(target):
        kept = _keep(target) if target.exists() else None
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".restoring-") as folder:
        stage = Path(folder) / target.name
        with _staged(source, stage) as store, store.write() as tx:
            _bury_again(tx, _tombstones(kept) if kept else [])
        with errors_for_people(target):
            os.close(os.open(target, os.O_RDWR | os.O_CREAT, 0o600))
            new, live = sqlite3.connect(stage), sqlite3.connect(target, timeout=waiting.BUSY_SECONDS)
            with closing(new), closing(live):
                new.backup(live)
    return kept


def restore_on_server(source: Path, target: Store, home: Path) -> Path | None:
    """The same for a store on a server, in one transaction: others read on, and wait with what they write.

    The old content is kept in `home`, as a file too. Raises as `restore`.
    """
    _check(source)
    with target.read() as tx:
        kept = None if copying.is_empty(tx) else _aside(home / "tutelage.db")
    if kept is not None:
        target.backup(kept)
    with (
        tempfile.TemporaryDirectory(dir=home, prefix=".restoring-") as folder,
        _staged(source, Path(folder) / source.name) as stage,
        target.write() as tx,
    ):
        with stage.write() as old:
            _bury_again(old, tx.execute(select(Tombstone.id, Tombstone.created)).tuples().all())
        copying.empty(tx)
        with stage.read() as old:
            copying.copy(old, tx)
    return kept


@contextmanager
def _staged(source: Path, stage: Path) -> Iterator[Store]:
    """A copy of a backup, brought up to date. It needs no copy of its own: the backup is one."""
    backup(source, stage)
    store = Store(open_database(stage, keep=False))
    try:
        yield store
    finally:
        store.close()


def _check(source: Path) -> None:
    if not source.is_file():
        raise DataError(
            "There is no such file.", path=source, hint="Name a file that `tutelage backup` wrote."
        )
    with errors_for_people(source):
        if migrations.current(source) is None:
            raise DataError("The file is an empty database.", path=source, hint="Name another backup.")
        with closing(sqlite3.connect(source)) as connection:
            found = connection.execute("PRAGMA integrity_check").fetchone()[0]
    if found != "ok":
        raise DataError(f"The backup is damaged: {found}.", path=source, hint="Name another backup.")


def _keep(target: Path) -> Path:
    """Put the present content aside; a database that is too damaged to be copied is moved as it is."""
    kept = _aside(target)
    try:
        backup(target, kept)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF not in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
            raise
        for end in ("", "-wal", "-shm"):
            part = target.with_name(target.name + end)
            if part.exists():
                os.rename(part, kept.with_name(kept.name + end))
    return kept


def _aside(target: Path) -> Path:
    return target.with_name(f"{target.name}.{datetime.now(UTC):%Y%m%dT%H%M%S%f}.bak")


def _tombstones(path: Path) -> _Tombstones:
    """What was deleted, by a database's own account; nothing where it cannot be read."""
    try:
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT id, created FROM tombstones").fetchall()
    except sqlite3.DatabaseError:
        return []
    return [(name, datetime.fromisoformat(created).replace(tzinfo=UTC)) for name, created in found]


def _bury_again(tx: Session, tombstones: _Tombstones) -> None:
    """Delete what had been deleted already, with all that hangs on it, and set the tombstones again."""
    known = {*tx.scalars(select(Tombstone.id))}
    fresh = [(name, created) for name, created in tombstones if name not in known]
    if not fresh:
        return
    rows = [{"id": name, "created": created} for name, created in fresh]
    tx.execute(insert(Tombstone), rows)
    buried = select(Tombstone.id)
    for table in (Dialogue, Demonstration, Rating, Ranking, Pick, CampaignEntry):
        tx.execute(delete(table).where(table.id.in_(buried)))
