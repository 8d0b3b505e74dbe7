"""The worker: takes requests for rounds out of the store and carries them out, one at a time.

A request is held by a lease that the worker renews while it works. A worker that is told to stop gives it back; when
one dies, its lease runs out. Another takes the request then, and the round goes on where it was. A worker that was
only asleep finds its request gone and stops at its next step; whoever has the request now waits for that.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Literal

from sqlalchemy.orm import Session

from tutelage.config import check
from tutelage.errors import Conflict, Sentence, TrainingError, TutelageError, Unavailable
from tutelage.improvement import ImproveConfig, Installation, improve
from tutelage.improvement.recording import RunStopped, persistently
from tutelage.store import Store, runs, workers
from tutelage.store.tables import Run, RunRequest
from tutelage.training.job import Trainer, train

log = logging.getLogger(__name__)

POLL_SECONDS = 2.0
NOTICE_SECONDS = 5.0


Tell = Callable[[str, str | None], None]
"""Called with a request's id when it has ended, and with what went wrong."""


def work(
    place: Installation,
    *,
    tell: Tell,
    trainer: Trainer = train,
    once: bool = False,
    poll_seconds: float = POLL_SECONDS,
) -> None:
    """Carry out requests until interrupted; with `once`, one request or none. `trainer` says where they are trained."""
    name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
    with _shown(place.store, name) as show:
        while True:
            try:
                with place.store.write() as tx:
                    show(tx)
                    request = runs.take_request(tx, worker=name)
            except Unavailable as problem:
                if once:
                    raise
                log.warning("requests cannot be taken now: %s", problem)
                request = None
            if request is not None:
                tell(request.id, _carry_out(request, place, name, trainer))
            if once:
                return
            if request is None:
                time.sleep(poll_seconds)


@contextmanager
def _shown(store: Store, name: str) -> Iterator[Callable[[Session], None]]:
    """Gives a function that shows now and then that this worker is there; at the end it is not there any more."""
    last = -workers.BEAT.total_seconds()

    def show(tx: Session) -> None:
        nonlocal last
        if time.monotonic() - last >= workers.BEAT.total_seconds():
            workers.show(tx, name)
            last = time.monotonic()

    try:
        yield show
    finally:
        with suppress(Unavailable), store.write() as tx:
            workers.leave(tx, name)


def _carry_out(request: RunRequest, place: Installation, name: str, trainer: Trainer) -> str | None:
    """One request, to its end; what went wrong is written to its row for people to read, and returned."""
    error: str | None = None
    with _held(place.store, request.id, name) as check_held:

        def begun(run_id: str) -> None:
            try:
                with place.store.write() as tx:
                    runs.renew_request(tx, request.id, worker=name, run_id=run_id)
            except Conflict as problem:
                raise _lost() from problem

        try:
            config = check(request.config, ImproveConfig, where="the request")
            improve(
                config,
                place,
                trainer=trainer,
                progress=lambda *_: check_held(),
                begun=begun,
                waiting=check_held,
                name=_round_of(place.store, request),
            )
        except TutelageError as problem:
            error = problem.sentence
        except Exception as problem:  # a worker outlives what it works on
            log.exception("request %s broke off", request.id)
            broken = TrainingError(
                Sentence("the round broke off: {problem}", problem=repr(problem)),
                hint="the worker's log has more; resume it to try again",
            )
            error = broken.sentence
        except KeyboardInterrupt:
            with suppress(Conflict, Unavailable), place.store.write() as tx:
                runs.return_request(tx, request.id, worker=name)
            raise
    status: Literal["done", "failed"] = "failed" if error else "done"
    try:
        persistently(
            place.store,
            lambda tx: runs.finish_request(tx, request.id, worker=name, status=status, error=error),
        )
    except Conflict as problem:
        error = error or problem.message
    return error


def _round_of(store: Store, request: RunRequest) -> str:
    """The round that this request became under a worker that has died, or had ended just before it could say so."""
    with store.read() as tx:
        run = None if request.run_id is None else tx.get(Run, request.run_id)
        return "" if run is None else run.name


@contextmanager
def _held(store: Store, request_id: str, name: str) -> Iterator[Callable[[], None]]:
    """Renew the lease from another thread; gives a function that raises RunStopped once the request is lost."""
    ended, lost = threading.Event(), threading.Event()
    pause = min(runs.LEASE.total_seconds() / 4, NOTICE_SECONDS)

    def renew() -> None:
        while not ended.wait(pause):
            try:
                with store.write() as tx:
                    workers.show(tx, name)
                    runs.renew_request(tx, request_id, worker=name)
            except Conflict:
                lost.set()
                return
            except Unavailable as problem:
                log.warning("the lease of request %s cannot be renewed now: %s", request_id, problem)

    def check_held() -> None:
        if lost.is_set():
            raise _lost()

    thread = threading.Thread(target=renew, name="lease", daemon=True)
    thread.start()
    try:
        yield check_held
    finally:
        ended.set()
        thread.join()


def _lost() -> RunStopped:
    return RunStopped("the request was cancelled or taken over by another worker")
