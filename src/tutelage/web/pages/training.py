"""Rounds of training: asked for here, carried out by the worker, watched here.

GET  /operate/training
POST /operate/training                        {dpo}: ask the worker for a round on what was collected
GET  /operate/training/live                   how far the runs are, as a fragment that the page fetches again
POST /operate/training/{request_id}/cancel    stop it; what was trained so far stays
POST /operate/training/{request_id}/resume    go on where it was
GET  /operate/training/rounds/{name}          the diary of a round: what went in and what came out
"""

from __future__ import annotations

import json
import os
import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel

from tutelage.errors import Conflict, NotFound, Sentence
from tutelage.evaluation import doubts
from tutelage.evaluation.gate import checks_of
from tutelage.registry import Registry
from tutelage.server.services import Services
from tutelage.store import audit, runs, workers
from tutelage.store.export.outlook import comparisons_up_to
from tutelage.store.tables import Run
from tutelage.web import curves
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate/training", include_in_schema=False)
SHOWN = 50
ROUND = "improve"
LOG_BYTES = 32_768


class NewRound(BaseModel):
    """With `dpo`, that baseline is trained, too, and stands in the round's table beside best-of-n."""

    dpo: bool = False


@dataclass(frozen=True, slots=True)
class Live:
    """A run under way. `left` is the time left of its present stage in seconds, None where nobody can tell."""

    run: Run
    stage: str
    done: int
    total: int
    left: float | None
    stages: list[curves.StageCurves]


@router.get("")
def training(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """What was asked for, and what became of it."""
    with parts.store.read() as tx:
        requests = runs.list_requests(tx, limit=SHOWN)
        rows = runs.list_runs(tx, limit=SHOWN)
        waiting = runs.open_requests(tx)
        few = doubts.few_comparisons(comparisons_up_to(tx, doubts.COMPARISONS))
    return pages.page(
        request,
        "operate_training.html",
        user=user,
        place="operate",
        tab="training",
        requests=requests,
        runs=rows,
        round=ROUND,
        waiting=waiting,
        few=few,
        live=live_runs(parts),
        **_workers(parts),
        base=base_model(parts.registry),
    )


@router.get("/live")
def live(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """The runs under way, and whether there is a worker."""
    return pages.bare(request, "_live.html", user=user, live=live_runs(parts), **_workers(parts))


@router.post("", status_code=204)
def start_round(user: Operator, parts: Parts, body: NewRound | None = None) -> None:
    """Ask for a round on the base of the version that answers now. One at a time."""
    config: dict[str, Any] = {"model": base_model(parts.registry)}
    if body is not None and body.dpo:
        config["dpo"] = {}
    with parts.store.write() as tx:
        if runs.open_requests(tx):
            raise Conflict("a round was asked for already", hint="wait for its end, or cancel it")
        row = runs.request_run(tx, kind=ROUND, config=config, requested_by=user.id)
        audit.record(tx, user.id, "start_round", row.id)


@router.post("/{request_id}/cancel", status_code=204)
def cancel(request_id: str, user: Operator, parts: Parts) -> None:
    """Take a request back; a worker that has begun notices soon."""
    with parts.store.write() as tx:
        runs.cancel_request(tx, request_id)
        audit.record(tx, user.id, "stop_round", request_id)


@router.post("/{request_id}/resume", status_code=204)
def resume(request_id: str, user: Operator, parts: Parts) -> None:
    """Ask again for what failed or was stopped."""
    with parts.store.write() as tx:
        if runs.open_requests(tx):
            raise Conflict("a round was asked for already", hint="wait for its end, or cancel it")
        runs.resume_request(tx, request_id, requested_by=user.id)
        audit.record(tx, user.id, "resume_round", request_id)


@router.get("/rounds/{name}")
def diary(request: Request, name: str, user: Operator, parts: Parts, pages: Templates) -> Response:
    """What went into a round and what came out of it."""
    with parts.store.read() as tx:
        run = runs.get_run(tx, name)
    if run.kind != ROUND:
        raise NotFound(Sentence("There is no round “{name}”.", name=name))
    folder = parts.home / "runs" / run.name
    state = _json(folder / "round.json")
    snapshot = str(state.get("snapshot", ""))
    report: dict[str, Any] = state.get("report") or {}
    return pages.page(
        request,
        "operate_round.html",
        user=user,
        place="operate",
        tab="training",
        run=run,
        parent=state.get("parent"),
        snapshot=snapshot,
        manifest=_json(parts.home / "snapshots" / snapshot / "manifest.json") if snapshot else {},
        report=report,
        evaluation=report.get("evaluation") or {},
        checks=checks_of(report.get("evaluation") or {}),
        doubts=doubts.of_round(report.get("evaluation") or {}),
        stages=curves.stages(folder),
        turn=curves.turn(((report.get("evaluation") or {}).get("ppo") or {}).get("over_optimisation") or {}),
        log=_end_of(folder / "log.txt"),
    )


def live_runs(parts: Services) -> list[Live]:
    """Runs under way with how far they are."""
    with parts.store.read() as tx:
        rows = [row for row in runs.list_runs(tx, limit=SHOWN) if row.status == "running"]
    return [_live(row, parts.home / "runs" / row.name) for row in rows if row.kind == ROUND]


def _workers(parts: Services) -> dict[str, Any]:
    """Who would carry a round out, and the command that starts somebody who does."""
    with parts.store.read() as tx:
        found = workers.alive(tx)
    return {
        "workers": found,
        "command": f"TUTELAGE_HOME={shlex.quote(str(parts.home))} tutelage worker",
        "on_a_server": not isinstance(parts.store.place, Path),
    }


def _live(run: Run, folder: Path) -> Live:
    far = run.metrics or {}
    stage, done, total = str(far.get("stage", "")), int(far.get("done", 0)), int(far.get("total", 0))
    found = curves.stages(folder)
    spent = next((each.seconds for each in found if each.stage == stage), 0.0)
    left = spent / done * (total - done) if done and spent and total >= done else None
    return Live(run, stage, done, total, left, found)


def _end_of(file: Path) -> str:
    """The last lines of a log; empty where there is none."""
    try:
        with file.open("rb") as stream:
            start = max(0, stream.seek(0, os.SEEK_END) - LOG_BYTES)
            stream.seek(start)
            text = stream.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return text.partition("\n")[2] if start else text


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def base_model(registry: Registry) -> str:
    """The model that a round begins from."""
    try:
        return registry.resolve("stable").model
    except NotFound:
        return "builtin"
