"""The store as one SQLite file: write-ahead log, foreign keys, writers one after the other."""

from __future__ import annotations

import logging
import os
import sqlite3
from collections.abc import Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError

from tutelage.errors import Conflict, DataError, Sentence, TutelageError, Unavailable
from tutelage.store import migrations, waiting

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class SqliteDatabase:
    """A file, opened."""

    place: Path
    readers: Engine
    writers: Engine

    def errors(self) -> AbstractContextManager[None]:
        """See `errors_for_people`."""
        return errors_for_people(self.place)

    def backup(self, target: Path) -> None:
        """See `backup`."""
        backup(self.place, target)


def open_database(path: Path, *, keep: bool = True) -> SqliteDatabase:
    """The database in this file, created when it is missing, migrated when it is older; with `keep`, after a backup.

    Raises DataError when the file is not a database, is damaged, or is newer than this program.
    """
    with errors_for_people(path):
        _create_private(path)
        _migrate(path, keep=keep)
    engine = connect(path)
    return SqliteDatabase(path, engine, engine.execution_options(begin="BEGIN IMMEDIATE"))


def connect(path: Path, *, migrating: bool = False) -> Engine:
    """An engine for this file. Transactions begin with the execution option `begin`, or plain BEGIN.

    While `migrating`, tables may be rebuilt: that must not cascade into their children, nor trip over triggers that
    name a table which is not there for a moment.
    """
    engine = create_engine(
        f"sqlite:///{path}", max_overflow=-1, connect_args={"timeout": waiting.BUSY_SECONDS}
    )

    @event.listens_for(engine, "connect")
    def prepare(connection: sqlite3.Connection, record: Any) -> None:
        connection.isolation_level = None  # transactions begin where we say, not where the driver guesses
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # what was accepted survives a power cut
        connection.execute(f"PRAGMA foreign_keys = {'OFF' if migrating else 'ON'}")
        connection.execute(f"PRAGMA legacy_alter_table = {'ON' if migrating else 'OFF'}")

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


def backup(source: Path, target: Path) -> None:
    """Copy a database to a file that does not exist yet, by SQLite's online backup.

    Raises DataError when the target exists or cannot be written.
    """
    if target.exists():
        raise DataError("There is a file already.", path=target, hint="Name a new file.")
    partial = target.with_name(f"{target.name}.partial")
    try:
        _create_private(partial)
        with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(partial)) as new:
            old.backup(new)
        os.replace(partial, target)
    except OSError as error:
        raise DataError(
            Sentence("Cannot write the backup: {error}.", error=error.strerror), path=target
        ) from error
    finally:
        partial.unlink(missing_ok=True)


def _migrate(path: Path, *, keep: bool) -> None:
    revision = migrations.current(path)
    if revision == migrations.HEAD:
        return
    if keep and revision is not None:
        kept = path.with_name(f"{path.name}.{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.bak")
        log.warning(
            "the database is brought from step %s to %s, a large one in minutes", revision, migrations.HEAD
        )
        backup(path, kept)
        log.warning("as it was, it is kept as %s", kept)
    engine = connect(path, migrating=True)
    try:
        with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
            migrations.upgrade(connection)
            if connection.exec_driver_sql("PRAGMA foreign_key_check").first():
                raise DataError(
                    "The migration would break links between rows.", path=path, hint="Report this."
                )
    finally:
        engine.dispose()


@contextmanager
def errors_for_people(path: Path) -> Iterator[None]:
    """Turn what SQLite says into our own errors; errors in the program itself pass through."""
    try:
        yield
    except DBAPIError as error:
        raise _explained(error.orig, path) or error from error
    except sqlite3.DatabaseError as error:
        raise _explained(error, path) or error from error


def _explained(error: BaseException | None, path: Path) -> TutelageError | None:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        return waiting.busy()
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict("Something this belongs to has just been changed or deleted.", hint="Load it again.")
    if code == sqlite3.SQLITE_FULL:
        return Unavailable("The disk is full.", hint="Free some space on the disk of the database.")
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return DataError("This file is damaged or not a database.", path=path, hint="Restore a backup.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return DataError(
            Sentence("The database cannot be used: {error}.", error=error),
            path=path,
            hint="Check the folder's rights.",
        )
    return None


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        hint = "Give it to the user that runs this program." if isinstance(error, PermissionError) else ""
        message = Sentence("The file cannot be opened: {error}.", error=error.strerror)
        raise DataError(message, path=path, hint=hint) from error
