"""What all tables have in common."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, MetaData
from sqlalchemy.orm import DeclarativeBase

from tutelage.store.columns import Json, Text, Time, clean


class Base(DeclarativeBase):
    """Common to all rows: what is set on a row is cleaned at once, so memory and database agree."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - read by SQLAlchemy as it stands
        str: Text,
        datetime: Time,
        dict[str, Any]: Json,
        list[str]: Json,
        list[list[str]]: Json,
        list[dict[str, Any]]: Json,
    }

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, clean(value))


def link_to_user(*, keep: bool = False) -> Any:
    """A reference to a person; with `keep`, the row outlives them without a name."""
    return ForeignKey("users.id", ondelete="SET NULL" if keep else "CASCADE")
