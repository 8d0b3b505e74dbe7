"""Schema versions. `versions/` holds one file a step; they only go forward."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import DataError

if TYPE_CHECKING:
    from sqlalchemy import Connection

HEAD = "0007"
FOLDER = Path(__file__).parent


def current(path: Path) -> str | None:
    """The schema version of a database file, None when it is empty.

    Raises DataError when it holds another program's tables or a schema that this program does not know.
    """
    with closing(sqlite3.connect(path)) as connection:
        tables = {
            name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        }
        if not tables:
            return None
        if "alembic_version" not in tables:
            raise DataError("This database belongs to another program.", path=path, hint="Name another file.")
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    if row is None or not any((FOLDER / "versions").glob(f"{row[0]}_*.py")):
        raise DataError(
            "This database was written by a newer tutelage.",
            path=path,
            hint="Upgrade tutelage, or restore the backup (.bak) that stands beside the file.",
        )
    return str(row[0])


def upgrade(connection: Connection) -> None:
    """Run the missing steps in the caller's transaction; none when another process was faster."""
    from alembic import command
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    command.upgrade(config, HEAD)
