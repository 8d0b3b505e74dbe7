"""Versions: where they came from, which one answers, and two of them compared in the chat.

GET  /operate
POST /operate/versions/{name}/promote    {anyway}: it becomes `stable`
POST /operate/rollback                   `stable` goes back to the version before
POST /operate/experiments                {treatment, percent, pairs}: it answers `percent` of new conversations, and at
                                         `pairs` percent of turns both versions do, side by side
POST /operate/experiments/{id}/end

Whichever version is to answer people, it is loaded and asked first; a broken one is refused, and nothing changes.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, ModelError, NotFound, Sentence
from tutelage.evaluation.bradley_terry import Game, strengths
from tutelage.evaluation.gate import checks_of, refusal
from tutelage.evaluation.sequential import Sequential, sequential_test
from tutelage.registry import ModelVersion, Registry
from tutelage.server.services import Services
from tutelage.server.serving import try_version
from tutelage.server.transactions import write
from tutelage.store import audit, experiments, runs
from tutelage.store.tables import AuditAction, Experiment, ExperimentStatus, User
from tutelage.web.lineage import draw
from tutelage.web.origins import origin_of
from tutelage.web.pages.parts import Operator, Parts, Templates
from tutelage.web.pages.training import ROUND

router = APIRouter(prefix="/operate", include_in_schema=False)
MAX_FIGURES = 16
INTERVAL = ("value", "low", "high")


class Promotion(BaseModel):
    """`anyway` promotes a version that the gate did not let pass."""

    anyway: bool = False


class NewExperiment(BaseModel):
    """A version to compare with the stable one, its share of new conversations, and that of turns that show both."""

    treatment: str = Field(max_length=16)
    percent: float = Field(gt=0, le=50, allow_inf_nan=False)
    pairs: float = Field(experiments.PAIRS * 100, ge=0, le=100, allow_inf_nan=False)


@router.get("")
def versions(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """All versions, newest first, with where they came from and how they did."""
    state = parts.engines.state()
    rows, broken = parts.registry.survey()
    stable = _stable(parts.registry)
    with parts.store.read() as tx:
        running = experiments.running_experiment(tx)
        standing = None if running is None else sequential_test(experiments.observations(tx, running))
        pairs = experiments.pairs_share(tx)
        ended = [row for row in experiments.list_experiments(tx) if row.status != "running"]
        rounds = {row.name for row in runs.list_runs(tx, kind=ROUND)}
        table = strengths(Game(*pair) for pair in experiments.compared_pairs(tx))
    return pages.page(
        request,
        "operate_versions.html",
        user=user,
        place="operate",
        tab="versions",
        versions=[(row, figures(row.evaluation), refusal(row.evaluation)) for row in reversed(rows)],
        checks=checks_of,
        origins={row.name: origin_of(row, parts.home) for row in rows},
        recipe=lambda config: json.dumps(config, indent=1, ensure_ascii=False),
        rounds=rounds,
        graph=draw(rows, stable=None if stable is None else stable.name),
        strengths=table,
        running=running,
        standing=standing,
        pairs=pairs,
        ended=ended,
        broken=broken,
        stable=stable,
        aliases=_aliases(parts.registry, rows),
        previous=_previous(parts.registry),
        loading=state.loading,
        failed=state.failed,
    )


@router.post("/versions/{name}/promote", status_code=204)
async def promote(name: str, user: Operator, parts: Parts, body: Promotion | None = None) -> None:
    """Let a version answer in the chat from now on. One that is broken, or did not pass the gate, is refused."""
    version = await _whole(parts, name)
    reason = refusal(version.evaluation)
    anyway = body is not None and body.anyway
    if reason is not None and not anyway:
        raise Conflict(
            Sentence("{name} did not pass the gate ({reason})", name=version.name, reason=reason),
            hint="promote it anyway, if you know better",
        )
    await _ask(parts, version.name)
    detail = {"anyway": anyway and reason is not None}
    async with _noted(parts, user, "promote_version", version.name, detail):
        await run_sync(parts.registry.promote, version.name)


@router.post("/rollback", status_code=204)
async def rollback(user: Operator, parts: Parts) -> None:
    """Let the version before the present one answer again; those that are gone since are passed over."""
    previous = await run_sync(parts.registry.previous)
    await _ask(parts, previous.name)
    async with _noted(parts, user, "roll_back", previous.name):
        await run_sync(partial(parts.registry.rollback, to=previous.name))


@router.post("/experiments", status_code=201)
async def start_experiment(body: NewExperiment, user: Operator, parts: Parts) -> dict[str, str]:
    """Let another version answer a share of new conversations, until it is clear which is better."""
    stable = await _whole(parts, "stable")
    treatment = await _whole(parts, body.treatment)
    await _ask(parts, treatment.name)

    def start(tx: Session) -> Experiment:
        row = experiments.start_experiment(
            tx,
            control=stable.name,
            treatment=treatment.name,
            share=body.percent / 100,
            by=user.id,
            pairs=body.pairs / 100,
        )
        audit.record(tx, user.id, "start_experiment", row.id, detail={"treatment": row.treatment})
        return row

    return {"id": (await write(parts.store, start)).id}


@router.post("/experiments/{experiment_id}/end", status_code=204)
def end_experiment(experiment_id: str, user: Operator, parts: Parts) -> None:
    """The stable version answers everybody again; what was found is kept."""
    with parts.store.write() as tx:
        _end(tx, experiment_id)
        audit.record(tx, user.id, "end_experiment", experiment_id)


async def _whole(parts: Services, name: str) -> ModelVersion:
    """The version of a name or alias. Raises NotFound, Conflict for one whose files are not whole."""
    try:
        version = await run_sync(parts.registry.resolve, name)
        await run_sync(parts.registry.check, version)
    except ModelError as error:
        raise Conflict(error.message, hint=error.hint) from error
    return version


async def _ask(parts: Services, name: str) -> None:
    """Load a version and ask it something. Raises Conflict for one that cannot answer."""
    try:
        await try_version(parts.engines, name)
    except ModelError as error:
        raise Conflict(error.message, hint=error.hint) from error


@asynccontextmanager
async def _noted(
    parts: Services, user: User, action: AuditAction, name: str, detail: dict[str, Any] | None = None
) -> AsyncIterator[None]:
    """Around a change of the stable version, which ends a comparison with the one before.

    The log comes first: a server that dies between the two leaves an entry for what was not done, and never a change
    without an entry. A change that fails has an entry of its own.
    """

    def note(tx: Session) -> None:
        running = experiments.running_experiment(tx)
        if running is not None and running.control != name:
            _end(tx, running.id)
        audit.record(tx, user.id, action, name, detail=detail)

    await write(parts.store, note)
    try:
        yield
    except Exception:
        await write(parts.store, lambda tx: audit.record(tx, user.id, "promotion_failed", name))
        raise


def _end(tx: Session, experiment_id: str) -> None:
    running = experiments.running_experiment(tx)
    found = Sequential(0, 0, 1.0, 0.0, 1.0)
    if running is not None and running.id == experiment_id:
        found = sequential_test(experiments.observations(tx, running))
    status: ExperimentStatus = "decided" if found.winner else "stopped"
    experiments.end_experiment(tx, experiment_id, status=status, result=found.as_dict())


def figures(evaluation: dict[str, Any]) -> list[tuple[str, str]]:
    """The numbers of an evaluation report with their intervals, by dotted name, in its own order."""
    return [(".".join(path), text) for path, text in _figures(evaluation)][:MAX_FIGURES]


def _figures(report: dict[str, Any], path: tuple[str, ...] = ()) -> Iterable[tuple[tuple[str, ...], str]]:
    for name, value in report.items():
        here = (*path, str(name))
        if isinstance(value, dict) and all(isinstance(value.get(key), int | float) for key in INTERVAL):
            yield here, "{} ({} – {})".format(*(_figure(value[key]) for key in INTERVAL))
            yield from _figures({key: each for key, each in value.items() if key not in INTERVAL}, here)
        elif isinstance(value, dict):
            yield from _figures(value, here)
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield here, _figure(value)


def _figure(value: int | float) -> str:
    return f"{value:,.0f}" if isinstance(value, int) or abs(value) >= 999.5 else f"{value:.3g}"


def _aliases(registry: Registry, rows: Iterable[ModelVersion]) -> dict[str, list[str]]:
    """Version to its aliases; a version without one has none."""
    named: dict[str, list[str]] = {row.name: [] for row in rows}
    for alias, name in registry.aliases().items():
        named.setdefault(name, []).append(alias)
    return named


def _stable(registry: Registry) -> ModelVersion | None:
    try:
        return registry.resolve("stable")
    except (NotFound, ModelError):
        return None


def _previous(registry: Registry) -> ModelVersion | None:
    try:
        return registry.previous()
    except Conflict:
        return None
