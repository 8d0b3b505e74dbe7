"""Work on the store, off the event loop: the store is synchronous, and may have to wait for its turn."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from anyio.to_thread import run_sync
from sqlalchemy.orm import Session

from tutelage.store import Store

T = TypeVar("T")


async def read(store: Store, work: Callable[[Session], T]) -> T:
    """Run `work` in a thread on a view of one moment. It must return rows or values, not the session."""

    def run() -> T:
        with store.read() as tx:
            return work(tx)

    return await run_sync(run)


async def write(store: Store, work: Callable[[Session], T]) -> T:
    """Run `work` in a thread in one transaction."""

    def run() -> T:
        with store.write() as tx:
            return work(tx)

    return await run_sync(run)
