"""A run's row in the store while it is carried out: its status, how far it is, and one process at a time."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

from sqlalchemy.orm import Session

from tutelage.errors import Conflict, Sentence, TutelageError, Unavailable
from tutelage.store import Store, runs
from tutelage.training.metrics import Progress

T = TypeVar("T")
log = logging.getLogger(__name__)

NOTED_EVERY = 1.0
RETRY_SECONDS = 0.5


class RunStopped(Conflict):
    """Somebody stopped the run; it can be resumed."""


def persistently(store: Store, work: Callable[[Session], T]) -> T:
    """Run `work` in one transaction, however long the database is away: what took hours is not lost over its end."""
    while True:
        try:
            with store.write() as tx:
                return work(tx)
        except Unavailable as problem:
            log.warning("the end of a run waits to be written down: %s", problem)
            time.sleep(RETRY_SECONDS)


@contextmanager
def recorded(store: Store, name: str, kind: str, settings: dict[str, Any]) -> Iterator[str]:
    """Keep a run's row in the store: running inside the block, then done, failed or stopped. Gives the row's id."""
    with store.write() as tx:
        try:
            run_id = runs.create_run(tx, kind=kind, config=settings, name=name).id
        except Conflict:
            run_id = runs.get_run(tx, name).id
        runs.update_run(tx, run_id, status="running", error="")

    def note(status: Literal["done", "failed"], error: str = "") -> None:
        persistently(store, lambda tx: runs.update_run(tx, run_id, status=status, error=error))

    try:
        yield run_id
    except (KeyboardInterrupt, RunStopped):
        with suppress(Unavailable), store.write() as tx:
            runs.update_run(tx, run_id, status="stopped", error="")
        raise
    except BaseException as error:
        note("failed", error.sentence if isinstance(error, TutelageError) else repr(error))
        raise
    note("done")


def noting(store: Store, run_id: str, progress: Progress) -> Progress:
    """Progress that is also written to the run's row, about once a second: {stage, done, total, metrics}."""
    last: dict[str, float] = {}

    def note(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        progress(stage, done, total, metrics)
        due = time.monotonic() - last.get(stage, -NOTED_EVERY) >= NOTED_EVERY
        if due or done == total:
            last[stage] = time.monotonic()
            how_far = {"stage": stage, "done": done, "total": total, "metrics": metrics}
            with suppress(Unavailable), store.write() as tx:
                runs.update_run(tx, run_id, status="running", metrics=how_far)

    return note


@contextmanager
def alone(folder: Path, *, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a run's folder against other processes of this machine; a dead one lets go by itself.

    Processes that train for this one inherit the lock: when it is killed, they still work there until they notice.
    While another works there, `waiting` is called twice a second, and may raise. Without it, Conflict is raised.
    """
    with (folder / ".lock").open("a") as stream:
        os.set_inheritable(stream.fileno(), True)
        told = False
        while not _locked(lambda: fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)):
            if waiting is None:
                raise Conflict(
                    Sentence("another process is working on {folder}", folder=folder.name),
                    hint="wait for its end, or stop it",
                )
            if not told:
                log.warning("another process is working on %s: waiting for its end", folder.name)
                told = True
            waiting()
            time.sleep(RETRY_SECONDS)
        yield


def _locked(lock: Callable[[], None]) -> bool:
    try:
        lock()
    except BlockingIOError:
        return False
    return True
