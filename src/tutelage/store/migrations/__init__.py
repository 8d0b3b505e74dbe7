"""Schema versions. `versions/` holds one file a step; they only go forward.

Steps up to 0007 are SQLite's own: on PostgreSQL a database begins after them, with the tables as they are (see
`postgres`). Later steps are for both; what only one can do stands under a condition on `op.get_bind().dialect.name`.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import DataError

if TYPE_CHECKING:
    from alembic.config import Config
    from sqlalchemy import Connection

HEAD = "0011"
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
    return known(None if row is None else row[0], path)


def known(revision: str | None, place: Path | str) -> str:
    """A schema version that this program has heard of. Raises DataError for any other."""
    if revision is None or not any((FOLDER / "versions").glob(f"{revision}_*.py")):
        raise DataError(
            "This database was written by a newer tutelage.",
            path=place,
            hint="Upgrade tutelage, or restore a backup from before: of a file, the .bak that stands beside it.",
        )
    return revision


def upgrade(connection: Connection) -> None:
    """Run the missing steps in the caller's transaction; none when another process was faster."""
    from alembic import command

    command.upgrade(_config(connection), HEAD)


def stamp(connection: Connection) -> None:
    """Note that the tables, made all at once, are those of the last step."""
    from alembic import command

    command.stamp(_config(connection), HEAD)


def _config(connection: Connection) -> Config:
    from alembic.config import Config

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(FOLDER).replace("%", "%%"))
    return config
