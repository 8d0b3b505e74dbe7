"""What commands work on, opened for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tutelage.store import Store


@contextmanager
def opened_store() -> Iterator[Store]:
    """The store of the data folder, or the one that `TUTELAGE_DATABASE_URL` names."""
    from tutelage.config import database
    from tutelage.store import Store

    store = Store.open(database())
    try:
        yield store
    finally:
        store.close()
