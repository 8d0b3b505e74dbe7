"""The store on a PostgreSQL server: the same tables and rules, for several web processes and workers at once.

A write takes an advisory lock of the database and holds it until its transaction has ended, so writers come one after
the other here too, and nothing that relies on it (leases, quotas, names, keys sent twice) needs another way. It is READ
COMMITTED: what it reads once it has the lock is what the writer before it left. Readers see one moment (REPEATABLE
READ) and wait for nobody.

A new database gets its tables as `tables` says, all at once, and takes part in migrations from there on.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, inspect, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.exc import TimeoutError as NoConnection
from sqlalchemy.orm import Session

from tutelage.errors import ConfigError, Conflict, DataError, Sentence, TutelageError, Unavailable
from tutelage.store import copying, migrations, waiting
from tutelage.store.tables import Base

WRITING = 0x7475_7465_6C61_6765
"""The key of the advisory lock."""
CONNECTIONS = 20
"""So many at most for a process; a server admits 100 unless it was told otherwise."""
CONNECT_SECONDS = 10
_VARIABLE = "TUTELAGE_DATABASE_URL"
_SESSION = """
    SET timezone = 'UTC';
    SET lock_timeout = '{busy:.0f}ms';
    SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3
"""  # whose machine has died keeps the lock for a minute, not for hours


@dataclass(frozen=True, slots=True)
class PostgresDatabase:
    """A database on a server, opened."""

    place: URL
    readers: Engine
    writers: Engine

    def errors(self) -> AbstractContextManager[None]:
        """See `errors_for_people`."""
        return errors_for_people()

    def backup(self, target: Path) -> None:
        """See `copying.to_file`: a backup is a SQLite file here too."""
        with Session(self.readers) as source:
            copying.to_file(source, target)


def open_database(address: str | URL) -> PostgresDatabase:
    """The database at postgresql://user:password@host/database, its tables made or migrated.

    Raises ConfigError for what is no such address, cannot be opened, or lacks rights or an extension; DataError when it
    holds something else or is newer than this program.
    """
    url = _url(address)
    engine = _connect(url)
    database = PostgresDatabase(
        url,
        engine.execution_options(isolation_level="REPEATABLE READ"),
        engine.execution_options(isolation_level="READ COMMITTED", lock=WRITING),
    )
    try:
        with _opening(url):
            _prepare(database, _shown(url))
    except BaseException:
        engine.dispose()
        raise
    return database


def _url(address: str | URL) -> URL:
    try:
        url = make_url(address)
    except (ArgumentError, ValueError):
        url = None
    if url is None or url.get_backend_name() not in ("postgresql", "postgres"):
        hint = "write postgresql://user:password@host/database, or leave it out: then tutelage uses a file"
        raise ConfigError("this is no address of a PostgreSQL database", where=_VARIABLE, hint=hint)
    return url.set(drivername="postgresql+psycopg")


def _shown(url: URL) -> str:
    """The address without the password, which may stand among the options too."""
    return url.set(drivername="postgresql", query={}).render_as_string()


def _connect(url: URL) -> Engine:
    """An engine whose transactions begin with taking the advisory lock of the execution option `lock`."""
    options = {"client_encoding": "utf8", "connect_timeout": CONNECT_SECONDS}
    try:
        engine = create_engine(
            url,
            pool_size=CONNECTIONS // 4,
            max_overflow=CONNECTIONS - CONNECTIONS // 4,
            pool_timeout=waiting.BUSY_SECONDS,
            pool_pre_ping=True,  # the server may have been started anew
            connect_args={name: value for name, value in options.items() if name not in url.query},
            json_serializer=_json,
        )
    except ImportError:
        hint = "pip install 'tutelage[postgres]'"
        raise ConfigError("the driver for PostgreSQL is not installed", where=_VARIABLE, hint=hint) from None

    @event.listens_for(engine, "connect")
    def prepare(connection: Any, record: Any) -> None:
        connection.autocommit = True
        connection.execute(_SESSION.format(busy=1000 * waiting.BUSY_SECONDS))
        connection.autocommit = False

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        lock = connection.get_execution_options().get("lock")
        if lock is not None:
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({lock})")

    return engine


def _prepare(database: PostgresDatabase, place: str) -> None:
    """Make the tables, or bring those of an older version up to date; alone, so that many may open it at once."""
    with database.readers.connect() as connection:
        if _revision(connection, place) == migrations.HEAD:
            return
    with database.writers.begin() as connection:
        if _revision(connection, place) is None:
            _create(connection)
        else:
            migrations.upgrade(connection)


def _revision(connection: Connection, place: str) -> str | None:
    """The schema version, None when there is nothing yet. Raises DataError as `migrations.known`."""
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar()
    if encoding != "UTF8":
        hint = "Make one with CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0."
        raise DataError(
            Sentence("The database keeps text as {encoding}, not UTF8.", encoding=encoding),
            path=place,
            hint=hint,
        )
    found = set(inspect(connection).get_table_names())
    if not found:
        return None
    if not {"alembic_version", "dialogues"} <= found:
        raise DataError("This database belongs to another program.", path=place, hint="Name an empty one.")
    row = connection.exec_driver_sql("SELECT version_num FROM alembic_version").first()
    return migrations.known(None if row is None else row[0], place)


def _create(connection: Connection) -> None:
    try:
        connection.exec_driver_sql("CREATE EXTENSION IF NOT EXISTS pg_trgm")
    except DBAPIError as error:
        raise ConfigError(
            Sentence("the extension pg_trgm cannot be added: {error}", error=_words(error)),
            where=_VARIABLE,
            hint="let an administrator run CREATE EXTENSION pg_trgm in this database, after installing "
            "PostgreSQL's contrib package on its server where that is missing",
        ) from error
    Base.metadata.create_all(connection, tables=copying.ROWS)
    migrations.stamp(connection)


@contextmanager
def _opening(url: URL) -> Iterator[None]:
    """What goes wrong here is told in the server's own words, with the address but for the password."""
    try:
        yield
    except DBAPIError as error:
        hint = _HINTS.get(_state(error))
        if hint is None and _state(error) and not isinstance(error, OperationalError):
            raise
        raise ConfigError(
            Sentence("the database cannot be used: {error}", error=_words(error)),
            where=_shown(url),
            hint=hint or f"look at the address in {_VARIABLE}, and whether the server runs",
        ) from error


_HINTS = {
    "42501": "let an administrator make this user the database's owner: ALTER DATABASE … OWNER TO …",
    "55P03": "another tutelage is at work there: try again in a moment",
}


@contextmanager
def errors_for_people() -> Iterator[None]:
    """Turn what PostgreSQL says into our own errors; errors in the program itself pass through."""
    try:
        yield
    except NoConnection as error:
        raise waiting.busy() from error
    except DBAPIError as error:
        raise _explained(error) or error from error


def _explained(error: DBAPIError) -> TutelageError | None:
    """By the class of its code (PostgreSQL's manual, appendix A)."""
    state = _state(error)
    if state in ("55P03", "40001", "40P01", "53300"):
        return waiting.busy()
    if state[:2] in ("", "08", "57") and isinstance(error, OperationalError):
        return Unavailable("The database cannot be reached.", hint="Try again in a moment.")
    if state[:2] == "23":
        return Conflict("Something this belongs to has just been changed or deleted.", hint="Load it again.")
    if state == "53100":
        return Unavailable("The disk of the database is full.", hint="Free some space on its server.")
    return None


def _state(error: DBAPIError) -> str:
    return getattr(error.orig, "sqlstate", None) or ""


def _words(error: DBAPIError) -> str:
    """What the server or its driver says, on one line and without what it stands around."""
    return str(error.orig).strip().splitlines()[0].removeprefix("connection failed: ").strip()


def _json(value: Any) -> str:
    """JSON as the standard has it: what is no number becomes null, where SQLite keeps NaN as it is."""
    return json.dumps(_finite(value), ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    return value
