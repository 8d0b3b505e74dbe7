"""What operators have set, each under a name; what was never set is as the program says."""

from __future__ import annotations

from typing import Any

from sqlalchemy.orm import Session

from tutelage.store.ids import now
from tutelage.store.tables import Setting


def read_setting(tx: Session, name: str) -> dict[str, Any]:
    """What was set under a name; empty when nothing was."""
    row = tx.get(Setting, name)
    return {} if row is None else dict(row.value)


def write_setting(tx: Session, name: str, value: dict[str, Any]) -> None:
    """Set a name anew."""
    row = tx.get(Setting, name) or Setting(name=name)
    row.value, row.updated = value, now()
    tx.add(row)
    tx.flush()
