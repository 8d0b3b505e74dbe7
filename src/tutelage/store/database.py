"""The database for many threads and processes: one writer at a time, readers never in its way.

It is a SQLite file (`sqlite`) or lies on a PostgreSQL server (`postgres`). Both keep the same tables and order: a
writer is alone until its transaction has ended, so what was read in it still holds.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

from sqlalchemy import URL, Engine
from sqlalchemy.orm import Session

from tutelage.store import sqlite, waiting


class Database(Protocol):
    """What a store stands on. Transactions of `writers` come one after the other."""

    @property
    def place(self) -> Path | URL: ...
    @property
    def readers(self) -> Engine: ...
    @property
    def writers(self) -> Engine: ...
    def errors(self) -> AbstractContextManager[None]:
        """Turns what the database says into errors for people."""

    def backup(self, target: Path) -> None: ...


class Store:
    """The database. Safe to share between threads; sessions are not: one `with` block, one thread.

    Rows stay usable after their block has ended. Inside `write` nothing slow may happen: everybody else
    who writes is waiting.
    """

    def __init__(self, database: Database) -> None:
        self.place = database.place
        self._database = database
        self._turn = threading.Lock()

    @classmethod
    def open(cls, place: Path | str | URL) -> Store:
        """The store in this file, or at this address (postgresql://…); made when it is missing, migrated when older.

        A file is copied before it is migrated. Raises DataError when it is not a database, is damaged, or is newer than
        this program, ConfigError when a server's database cannot be used.
        """
        if isinstance(place, URL) or (isinstance(place, str) and "://" in place):
            from tutelage.store import postgres  # who has no server need not have its driver

            return cls(postgres.open_database(place))
        return cls(sqlite.open_database(Path(place)))

    @contextmanager
    def write(self) -> Iterator[Session]:
        """A transaction that may write; committed at the end, rolled back when the block raises.

        Raises Unavailable when other writers do not finish in time, the disk is full or the server cannot be reached.
        """
        with (
            self._database.errors(),
            self._my_turn(),
            self._session(self._database.writers) as tx,
            tx.begin(),
        ):
            yield tx

    @contextmanager
    def read(self) -> Iterator[Session]:
        """A consistent view of one moment. What is changed in it is forgotten."""
        with self._database.errors(), self._session(self._database.readers) as tx:
            yield tx

    def backup(self, target: Path) -> None:
        """Copy the database as it is at this moment, while others read and write, to a file that does not exist yet.

        The copy is a SQLite file. Raises DataError when the target exists or cannot be written.
        """
        with self._database.errors():
            self._database.backup(target)

    def close(self) -> None:
        """Close all connections."""
        self._database.readers.dispose()

    @staticmethod
    def _session(engine: Engine) -> Session:
        return Session(engine, expire_on_commit=False)

    @contextmanager
    def _my_turn(self) -> Iterator[None]:
        # Threads of this process queue here, in order; SQLite's own waiting is by polling and unfair.
        if not self._turn.acquire(timeout=waiting.BUSY_SECONDS):
            raise waiting.busy()
        try:
            yield
        finally:
            self._turn.release()
