"""Rounds of training: asked for here, carried out by the worker, watched here.

GET  /operate/training
POST /operate/training                     ask the worker for a round on what was collected
POST /operate/training/{request_id}/cancel
"""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response

from tutelage.errors import Conflict, NotFound
from tutelage.registry import Registry
from tutelage.store import labelling, runs
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/training", include_in_schema=False)
OPEN = ("pending", "taken")
SHOWN = 50


@router.get("")
def training(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """What was asked for, and what became of it."""
    with parts.store.read() as tx:
        requests = runs.list_requests(tx, limit=SHOWN)
        rows = runs.list_runs(tx, limit=SHOWN)
        rankings = labelling.count_rankings(tx)
    return pages.page(
        request,
        "operate_training.html",
        user=user,
        place="operate",
        tab="training",
        requests=requests,
        runs=rows,
        rankings=rankings,
        waiting=any(row.status in OPEN for row in requests),
        base=base_model(parts.registry),
    )


@router.post("", status_code=204)
def start_round(user: Operator, parts: Parts) -> None:
    """Ask for a round on the base of the version that answers now. One at a time."""
    with parts.store.write() as tx:
        if any(row.status in OPEN for row in runs.list_requests(tx)):
            raise Conflict("a round was asked for already", hint="wait for its end, or cancel it")
        runs.request_run(
            tx, kind="improve", config={"model": base_model(parts.registry)}, requested_by=user.id
        )


@router.post("/{request_id}/cancel", status_code=204)
def cancel(request_id: str, user: Operator, parts: Parts) -> None:
    """Take a request back; a worker that has begun notices soon."""
    with parts.store.write() as tx:
        runs.cancel_request(tx, request_id)


def base_model(registry: Registry) -> str:
    """The model that a round begins from."""
    try:
        return registry.resolve("stable").model
    except NotFound:
        return "builtin"
