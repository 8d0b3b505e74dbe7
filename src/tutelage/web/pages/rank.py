"""Ranking: answers to one question, blind and shuffled, put into an order.

GET  /rank
POST /rank/next                 lines of JSON: {sampled, of} while the model writes, then {task: ID | null}
GET  /rank/tasks/{id}           the task as a fragment of the page
POST /rank/tasks/{id}           {groups, unrankable, all_bad, note}
POST /rank/tasks/{id}/renew     the page holds its lease with this
POST /rank/tasks/{id}/skip      {reason}
"""

from __future__ import annotations

import random

from anyio.to_thread import run_sync
from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from pydantic import BaseModel, Field

from tutelage.dialogue import Message
from tutelage.errors import Conflict
from tutelage.server.turn import Candidate, Turns
from tutelage.store import Store, accounts, labelling
from tutelage.store.labelling import RankingTask
from tutelage.store.tables import User
from tutelage.web import markdown
from tutelage.web.pages.parts import Parts, Templates, Trainer

router = APIRouter(prefix="/rank", include_in_schema=False)
CANDIDATES = 4
ATTEMPTS = 3


class Order(BaseModel):
    """An order of candidate ids: groups best first, a group is a tie."""

    groups: list[list[str]] = Field(max_length=9)
    unrankable: list[str] = Field(default=[], max_length=9)
    all_bad: bool = False
    note: str = Field(default="", max_length=4000)


class Skip(BaseModel):
    """Why a task is left to others."""

    reason: str = Field(default="", max_length=4000)


@router.get("")
def rank(request: Request, user: Trainer, pages: Templates) -> Response:
    """The page; its script fetches the first task."""
    return pages.page(request, "rank.html", user=user, place="rank")


@router.post("/next")
async def next_task(user: Trainer, parts: Parts) -> dict[str, str | None]:
    """Lease a task, and have the model write what there is to rank. Takes as long as the model takes."""
    for _ in range(ATTEMPTS):
        task = await run_sync(_take, parts.store, user)
        if task is None:
            return {"task": None}
        if task.candidates or await _keep(parts.store, task, user, await _sample(task, parts.turns)):
            return {"task": task.id}
    raise Conflict("the model gives the same answers every time", hint="try again later")


@router.get("/tasks/{task_id}")
def task_fragment(request: Request, task_id: str, user: Trainer, parts: Parts, pages: Templates) -> Response:
    """A task the trainer holds: the conversation and the candidates, without a word about who wrote what."""
    with parts.store.read() as tx:
        task = labelling.ranking_task(tx, task_id, user.id)
    return pages.bare(
        request,
        "_task.html",
        user=user,
        path=[{"role": row.role, "html": _html(row.content)} for row in task.prompt],
        candidates=[{"id": row.id, "html": _html(row.content)} for row in task.candidates],
    )


@router.post("/tasks/{task_id}", status_code=204)
def submit(task_id: str, body: Order, user: Trainer, parts: Parts) -> None:
    """Hand an order in."""
    with parts.store.write() as tx:
        labelling.submit_ranking(tx, task_id=task_id, annotator_id=user.id, **body.model_dump())


@router.post("/tasks/{task_id}/renew", status_code=204)
def renew(task_id: str, user: Trainer, parts: Parts) -> None:
    """Hold the task for another while."""
    with parts.store.write() as tx:
        labelling.renew_lease(tx, task_id, user.id)


@router.post("/tasks/{task_id}/skip", status_code=204)
def skip(task_id: str, body: Skip, user: Trainer, parts: Parts) -> None:
    """Leave the task to others."""
    with parts.store.write() as tx:
        labelling.release(tx, task_id, user.id, reason=body.reason)


def _take(store: Store, user: User) -> RankingTask | None:
    with store.write() as tx:
        alone = accounts.count_users(tx, roles=("trainer", "operator")) == 1
        return labelling.next_ranking_task(
            tx, annotator_id=user.id, k=CANDIDATES, rng=random.Random(), own_writing=alone
        )


async def _sample(task: RankingTask, turns: Turns) -> list[Candidate]:
    """Other answers of today's model to the task's prompt; one more is drawn than needed, in case two agree."""
    prompt = [Message(row.role, row.content) for row in task.prompt]
    drawn = await turns.candidates("stable", prompt, task.k)
    others = [each for each in drawn if each["content"].strip() != task.message.content.strip()]
    return others[: task.k - 1]


async def _keep(store: Store, task: RankingTask, user: User, samples: list[Candidate]) -> bool:
    """Store the samples; a task to which the model has only one answer is given back."""

    def keep() -> None:
        with store.write() as tx:
            if samples:
                labelling.set_candidates(tx, task.id, user.id, [dict(sample) for sample in samples])
            else:
                labelling.release(tx, task.id, user.id, reason="the model gave the same answer every time")

    await run_sync(keep)
    return bool(samples)


def _html(text: str) -> Markup:
    return Markup(markdown.render(text))
