"""One SQLite file, many threads and processes: one writer at a time, readers never in its way."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.exc import DBAPIError
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, DataError, Sentence, TutelageError, Unavailable
from tutelage.store import migrations

BUSY_SECONDS = 15.0


class Store:
    """The database. Safe to share between threads; sessions are not: one `with` block, one thread.

    Rows stay usable after their block has ended. Inside `write` nothing slow may happen: everybody else
    who writes is waiting.
    """

    def __init__(self, path: Path, engine: Engine) -> None:
        self.path = path
        self._readers = engine
        self._writers = engine.execution_options(begin="BEGIN IMMEDIATE")
        self._turn = threading.Lock()

    @classmethod
    def open(cls, path: Path | str) -> Store:
        """The store in this file, created when it is missing, migrated (after a backup) when it is older.

        Raises DataError when the file is not a database, is damaged, or is newer than this program.
        """
        path = Path(path)
        with errors_for_people(path):
            _create_private(path)
            _migrate(path)
        return cls(path, connect(path))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; committed at the end, rolled back when the block raises.

        Raises Unavailable when other writers do not finish in time or the disk is full.
        """
        with errors_for_people(self.path), self._my_turn(), self._session(self._writers) as tx, tx.begin():
            yield tx

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view of one moment. What is changed in it is forgotten."""
        with errors_for_people(self.path), self._session(self._readers) as tx:
            yield tx

    def backup(self, target: Path) -> None:
        """Copy the database as it is at this moment, while others read and write. See `backup`."""
        with errors_for_people(self.path):
            backup(self.path, target)

    def close(self) -> None:
        """Close all connections."""
        self._readers.dispose()

    @staticmethod
    def _session(engine: Engine) -> Session:
        return Session(engine, expire_on_commit=False)

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        # Threads of this process queue here, in order; SQLite's own waiting is by polling and unfair.
        if not self._turn.acquire(timeout=BUSY_SECONDS):
            raise Unavailable("The database is busy.", hint="Try again in a moment.")
        try:
            yield
        finally:
            self._turn.release()


def connect(path: Path, *, migrating: bool = False) -> Engine:
    """An engine for this file. Transactions begin with the execution option `begin`, or plain BEGIN.

    While `migrating`, tables may be rebuilt: that must not cascade into their children, nor trip over triggers that
    name a table which is not there for a moment.
    """
    engine = create_engine(f"sqlite:///{path}", max_overflow=-1, connect_args={"timeout": BUSY_SECONDS})

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
        raise DataError(f"Cannot write the backup: {error.strerror}.", path=target) from error
    finally:
        partial.unlink(missing_ok=True)


def _migrate(path: Path) -> None:
    revision = migrations.current(path)
    if revision == migrations.HEAD:
        return
    if revision is not None:
        backup(path, path.with_name(f"{path.name}.{revision}-{datetime.now(UTC):%Y%m%dT%H%M%S%f}.bak"))
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
        return Unavailable("The database is busy.", hint="Try again in a moment.")
    if code == sqlite3.SQLITE_CONSTRAINT:
        return Conflict("Something this belongs to has just been changed or deleted.", hint="Load it again.")
    if code == sqlite3.SQLITE_FULL:
        return Unavailable("The disk is full.", hint=Sentence("Free some space beside {path}.", path=path))
    if code in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
        return DataError("This file is damaged or not a database.", path=path, hint="Restore a backup.")
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM, sqlite3.SQLITE_IOERR):
        return DataError(
            f"The database cannot be used: {error}.", path=path, hint="Check the folder's rights."
        )
    return None


def _create_private(path: Path) -> None:
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise DataError(f"The file cannot be opened: {error.strerror}.", path=path) from error
