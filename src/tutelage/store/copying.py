"""All rows from one database into another, whichever kinds they are: a server's backup, and the way there and back."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sqlalchemy import Select, bindparam, delete, insert, select, update
from sqlalchemy.orm import Session

from tutelage.errors import DataError
from tutelage.store import sqlite
from tutelage.store.tables import Base

BATCH = 1000
ROWS = [table for table in Base.metadata.sorted_tables if not table.info.get("sqlite_alone")]
"""The tables that hold what people and the program have written, parents first."""


def to_file(source: Session, target: Path) -> None:
    """Write what this session sees into a SQLite file that does not exist yet; all of it or no file.

    Raises DataError when the target exists or cannot be written.
    """
    if target.exists():
        raise DataError("There is a file already.", path=target, hint="Name a new file.")
    partial = target.with_name(f"{target.name}.partial")
    try:
        database = sqlite.open_database(partial)
        with database.errors(), Session(database.writers) as tx, tx.begin():
            copy(source, tx)
        database.readers.dispose()
        os.replace(partial, target)
    except OSError as error:
        raise DataError(f"Cannot write the backup: {error.strerror}.", path=target) from error
    finally:
        for end in ("", "-wal", "-shm"):
            partial.with_name(partial.name + end).unlink(missing_ok=True)


def copy(source: Session, target: Session) -> None:
    """Every row into a database without any."""
    for table in ROWS:
        links = [key.parent for key in table.foreign_keys if key.column.table is table]
        nowhere = {link.name: None for link in links}
        for rows in _batches(source, select(table).order_by(*table.primary_key)):
            target.connection().execute(insert(table), [row | nowhere for row in rows])
        for link in links:  # only now is everything there that they may point at
            (key,) = table.primary_key
            change = update(table).where(key == bindparam("of")).values({link: bindparam("to")})
            for rows in _batches(source, select(key.label("of"), link.label("to")).where(link.is_not(None))):
                target.connection().execute(change, rows)


def empty(target: Session) -> None:
    """Delete every row."""
    for table in reversed(ROWS):
        target.connection().execute(delete(table))


def is_empty(source: Session) -> bool:
    """Whether there is no row at all."""
    return all(source.connection().execute(select(table).limit(1)).first() is None for table in ROWS)


def _batches(source: Session, query: Select[Any]) -> Iterator[list[dict[str, Any]]]:
    result = source.connection().execute(query.execution_options(yield_per=BATCH))
    for rows in result.mappings().partitions():
        yield [dict(row) for row in rows]
