"""Ranking: answers to one question, blind and shuffled, put into an order.

GET  /rank
POST /rank/next                 lines of JSON: {sampled, of} while the model writes, again every 15 s at least; then
                                {task: ID | null} or {error}
GET  /rank/tasks/{id}           the task as a fragment of the page, or as JSON for programs
POST /rank/tasks/{id}           {groups, unrankable, all_bad, note, fixes: [{candidate, content}]}
POST /rank/tasks/{id}/renew     the page holds its lease with this
POST /rank/tasks/{id}/skip      {reason, flagged}
"""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from markupsafe import Markup
from pydantic import BaseModel, Field
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, TutelageError
from tutelage.server.errors import failure_of, told_to
from tutelage.server.sampling import sample_candidates
from tutelage.server.services import Services
from tutelage.server.streaming import AS_IT_COMES, with_heartbeat
from tutelage.server.transactions import read, write
from tutelage.store import accounts, labelling
from tutelage.store.labelling import RankingTask
from tutelage.store.tables import User
from tutelage.web import markdown
from tutelage.web.pages.parts import Parts, Templates, Trainer

router = APIRouter(prefix="/rank", include_in_schema=False)
ATTEMPTS = 3
SAME = "the model gave the same answer every time"


class Fix(BaseModel):
    """A candidate as the trainer would have written it."""

    candidate: str
    content: str = Field(min_length=1, max_length=32_000)


class Order(BaseModel):
    """An order of candidate ids: groups best first, a group is a tie."""

    groups: list[list[str]] = Field(max_length=9)
    unrankable: list[str] = Field(default=[], max_length=9)
    all_bad: bool = False
    note: str = Field(default="", max_length=4000)
    fixes: list[Fix] = Field(default=[], max_length=9)


class Skip(BaseModel):
    """Why a task is left to others."""

    reason: str = Field(default="", max_length=4000)
    flagged: bool = False


@router.get("")
def rank(request: Request, user: Trainer, pages: Templates) -> Response:
    """The page; its script fetches the first task."""
    return pages.page(request, "rank.html", user=user, place="rank")


@router.post("/next")
async def next_task(request: Request, user: Trainer, parts: Parts) -> StreamingResponse:
    """Lease a task, and have the model write what there is to rank. Takes as long as the model takes."""
    lines = _lines(request, user, parts)
    return StreamingResponse(lines, media_type="application/x-ndjson", headers=AS_IT_COMES)


@router.get("/tasks/{task_id}")
def task_fragment(request: Request, task_id: str, user: Trainer, parts: Parts, pages: Templates) -> Response:
    """A task the trainer holds: the conversation and the candidates, without a word about who wrote what."""
    with parts.store.read() as tx:
        task = labelling.ranking_task(tx, task_id, user.id)
        guidelines = labelling.current_guidelines(tx, "rank")
    if "application/json" in request.headers.get("accept", ""):
        return JSONResponse(_plain(task))
    return pages.bare(
        request,
        "_task.html",
        user=user,
        path=[{"role": row.role, "html": _html(row.content)} for row in task.prompt],
        candidates=[
            {"id": row.id, "html": _html(row.content), "text": row.content} for row in task.candidates
        ],
        guidelines=None if guidelines is None else _html(guidelines.content),
    )


@router.post("/tasks/{task_id}", status_code=204)
def submit(task_id: str, body: Order, user: Trainer, parts: Parts) -> None:
    """Hand an order in, with the answers that the trainer wrote better."""
    with parts.store.write() as tx:
        for fix in body.fixes:
            labelling.fix_candidate(
                tx,
                task_id=task_id,
                annotator_id=user.id,
                candidate_id=fix.candidate,
                content=fix.content,
                accepted=user.role == "operator",
            )
        fields = body.model_dump(exclude={"fixes"})
        labelling.submit_ranking(tx, task_id=task_id, annotator_id=user.id, **fields)


@router.post("/tasks/{task_id}/renew", status_code=204)
def renew(task_id: str, user: Trainer, parts: Parts) -> None:
    """Hold the task for another while."""
    with parts.store.write() as tx:
        labelling.renew_lease(tx, task_id, user.id)


@router.post("/tasks/{task_id}/skip", status_code=204)
def skip(task_id: str, body: Skip, user: Trainer, parts: Parts) -> None:
    """Leave the task to others."""
    with parts.store.write() as tx:
        labelling.release(tx, task_id, user.id, reason=body.reason, flagged=body.flagged)


async def _lines(request: Request, user: User, parts: Services) -> AsyncIterator[str]:
    """What `next` answers. An error after the first line can no longer be a status, so it is a line."""
    try:
        async for event in _events(user, parts):
            yield json.dumps(event) + "\n"
    except TutelageError as error:
        yield json.dumps(told_to(request, failure_of(error)).body()) + "\n"


async def _events(user: User, parts: Services) -> AsyncIterator[dict[str, Any]]:
    versions = (await read(parts.store, labelling.labelling_settings)).versions
    for _ in range(ATTEMPTS):
        task = await write(parts.store, lambda tx: _take(tx, user))
        if task is None:
            yield {"task": None}
            return
        samples: list[dict[str, Any]] = []
        if not task.candidates:
            drawing = with_heartbeat(sample_candidates(parts.turns, task, versions), None)
            async with aclosing(drawing) as coming:
                async for sample in coming:
                    if sample is not None:
                        samples.append(dict(sample))
                    else:  # the model is slow: the task stays theirs meanwhile
                        await write(parts.store, _renewal(task, user))
                    yield {"sampled": len(samples), "of": task.k - 1}
            await write(parts.store, _keep(task, user, samples))
        if task.candidates or samples:
            yield {"task": task.id}
            return
    raise Conflict("the model gives the same answers every time", hint="try again later")


def _take(tx: Session, user: User) -> RankingTask | None:
    settings = labelling.labelling_settings(tx)
    return labelling.next_ranking_task(
        tx,
        annotator_id=user.id,
        k=settings.candidates,
        overlap=settings.overlap,
        gold_share=settings.gold_share,
        rng=random.Random(),
        own_writing=accounts.count_users(tx, roles=("trainer", "operator")) == 1,
    )


def _renewal(task: RankingTask, user: User) -> Callable[[Session], RankingTask]:
    return lambda tx: labelling.renew_lease(tx, task.id, user.id)


def _keep(task: RankingTask, user: User, samples: list[dict[str, Any]]) -> Callable[[Session], None]:
    """Stores the samples; a task to which the model has only one answer is given back."""

    def keep(tx: Session) -> None:
        if samples:
            labelling.set_candidates(tx, task.id, user.id, samples)
        else:
            labelling.release(tx, task.id, user.id, reason=SAME)

    return keep


def _plain(task: RankingTask) -> dict[str, Any]:
    return {
        "id": task.id,
        "expires": task.expires.isoformat(),
        "prompt": [{"role": row.role, "content": row.content} for row in task.prompt],
        "candidates": [{"id": row.id, "content": row.content} for row in task.candidates],
    }


def _html(text: str) -> Markup:
    return Markup(markdown.render(text))
