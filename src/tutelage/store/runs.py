"""What was trained and how it went, and what the worker is asked to do next."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, Literal, get_args

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound, Sentence, Unavailable
from tutelage.store.ids import now
from tutelage.store.tables import Run, RunRequest, RunStatus

LEASE = timedelta(minutes=2)
ATTEMPTS = 3


def create_run(
    tx: Session, *, kind: str, config: dict[str, Any], parents: Sequence[str] = (), name: str | None = None
) -> Run:
    """A run that is about to begin; without a name it becomes `kind-0001` and so on. Raises Conflict."""
    if name is None:
        name = _next_name(tx, kind)
    elif tx.scalar(select(Run).where(Run.name == name)) is not None:
        raise Conflict(
            Sentence("There is a run named “{name}” already.", name=name), hint="Choose another name."
        )
    run = Run(name=name, kind=kind, config=config, parents=list(parents))
    tx.add(run)
    tx.flush()
    return run


def update_run(
    tx: Session,
    run_id: str,
    *,
    status: RunStatus,
    metrics: dict[str, Any] | None = None,
    error: str | None = None,
) -> Run:
    """How a run is doing; metrics and error stay as they are when None. Raises NotFound, InvalidRequest."""
    if status not in get_args(RunStatus):
        raise InvalidRequest(Sentence("There is no status “{status}”.", status=status), param="status")
    run = get_run(tx, run_id)
    run.status, run.updated = status, now()
    run.metrics = run.metrics if metrics is None else metrics
    run.error = run.error if error is None else error
    tx.flush()
    return run


def get_run(tx: Session, run_id: str) -> Run:
    """By id or name. Raises NotFound."""
    run = tx.scalar(select(Run).where((Run.id == run_id) | (Run.name == run_id)))
    if run is None:
        raise NotFound(Sentence("There is no run “{name}”.", name=run_id))
    return run


def list_runs(tx: Session, *, kind: str | None = None, limit: int = 100) -> Sequence[Run]:
    """Newest first."""
    query = select(Run).order_by(Run.id.desc()).limit(limit)
    return tx.scalars(query if kind is None else query.where(Run.kind == kind)).all()


def run_names(tx: Session) -> Sequence[str]:
    """What runs have ever been called."""
    return tx.scalars(select(Run.name)).all()


def request_run(
    tx: Session, *, kind: str, config: dict[str, Any], requested_by: str | None = None
) -> RunRequest:
    """Ask the worker for a run."""
    request = RunRequest(kind=kind, config=config, requested_by=requested_by)
    tx.add(request)
    tx.flush()
    return request


def take_request(tx: Session, *, worker: str, lease: timedelta = LEASE) -> RunRequest | None:
    """The oldest request that waits, or whose worker has not renewed its lease in time.

    A request that has killed its workers again and again fails.
    """
    died = Unavailable(
        Sentence("{count} workers died over it", count=ATTEMPTS),
        hint="look for lack of memory, then resume it",
    )
    lost = (RunRequest.status == "taken") & (RunRequest.lease_expires <= now())
    for row in tx.scalars(select(RunRequest).where(lost, RunRequest.attempts >= ATTEMPTS)):
        row.status = "failed"
        row.error = died.sentence
    tx.flush()
    free = select(RunRequest).where((RunRequest.status == "pending") | lost)
    request = tx.scalar(free.order_by(RunRequest.id).limit(1))
    if request is not None:
        request.status, request.worker, request.lease_expires = "taken", worker, now() + lease
        request.attempts += 1
        tx.flush()
    return request


def renew_request(
    tx: Session, request_id: str, *, worker: str, run_id: str | None = None, lease: timedelta = LEASE
) -> RunRequest:
    """Keep a request, and note the run it became. Raises Conflict when it was cancelled or taken over."""
    request = _held(tx, request_id, worker)
    request.lease_expires = now() + lease
    request.run_id = run_id or request.run_id
    tx.flush()
    return request


def return_request(tx: Session, request_id: str, *, worker: str) -> RunRequest:
    """Let the next worker have a request that this one has not ended; it counts as if it had not been taken.

    Raises Conflict when the request was cancelled or taken over.
    """
    request = _held(tx, request_id, worker)
    request.status, request.worker, request.lease_expires = "pending", None, None
    request.attempts -= 1
    tx.flush()
    return request


def finish_request(
    tx: Session,
    request_id: str,
    *,
    worker: str,
    status: Literal["done", "failed"],
    run_id: str | None = None,
    error: str | None = None,
) -> RunRequest:
    """Raises Conflict when the request was cancelled or taken over."""
    request = _held(tx, request_id, worker)
    request.status, request.error = status, error
    request.run_id = run_id or request.run_id
    tx.flush()
    return request


def cancel_request(tx: Session, request_id: str) -> RunRequest:
    """The worker notices at its next renewal. Raises NotFound; Conflict when the request has ended."""
    request = get_request(tx, request_id)
    if request.status not in ("pending", "taken"):
        raise Conflict(Sentence("This request is {status}.", status=request.status))
    request.status = "cancelled"
    tx.flush()
    return request


def resume_request(tx: Session, request_id: str, *, requested_by: str | None = None) -> RunRequest:
    """Ask again for what failed or was cancelled; it goes on where it was. Raises NotFound, Conflict."""
    old = get_request(tx, request_id)
    if old.status not in ("failed", "cancelled"):
        raise Conflict(Sentence("This request is {status}.", status=old.status))
    request = request_run(tx, kind=old.kind, config=old.config, requested_by=requested_by)
    request.run_id = old.run_id
    tx.flush()
    return request


def open_requests(tx: Session) -> Sequence[RunRequest]:
    """Those that wait or are under way, oldest first."""
    query = select(RunRequest).where(RunRequest.status.in_(("pending", "taken")))
    return tx.scalars(query.order_by(RunRequest.id)).all()


def get_request(tx: Session, request_id: str) -> RunRequest:
    """Raises NotFound."""
    request = tx.get(RunRequest, request_id)
    if request is None:
        raise NotFound("There is no such run request.")
    return request


def list_requests(tx: Session, *, limit: int = 100) -> Sequence[RunRequest]:
    """Newest first."""
    return tx.scalars(select(RunRequest).order_by(RunRequest.id.desc()).limit(limit)).all()


def _held(tx: Session, request_id: str, worker: str) -> RunRequest:
    request = get_request(tx, request_id)
    if request.status != "taken" or request.worker != worker:
        raise Conflict("This request is not yours any more.")
    return request


def _next_name(tx: Session, kind: str) -> str:
    number = tx.scalar(select(func.count()).where(Run.kind == kind)) or 0
    while True:
        number += 1
        name = f"{kind}-{number:04d}"
        if tx.scalar(select(Run.id).where(Run.name == name)) is None:
            return name
