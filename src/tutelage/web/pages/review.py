"""What trainers did, looked at by operators: dialogues to accept, rankings to settle, how far people agree.

GET  /operate/demonstrations                ?status=submitted
POST /operate/demonstrations/{id}           {decision, note, texts?: the messages as the reviewer has changed them}
GET  /operate/agreement
GET  /operate/tasks/{id}                    one ranking task with everybody's order
POST /operate/tasks/{id}                    {ranks: one a candidate, empty for not rankable, gold, note}
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from fastapi import APIRouter, Request
from fastapi.responses import Response
from markupsafe import Markup
from pydantic import BaseModel, Field

from tutelage.errors import InvalidRequest
from tutelage.store import labelling
from tutelage.store.labelling import Estimate
from tutelage.store.masking import mask
from tutelage.store.tables import DemonstrationStatus
from tutelage.web import markdown
from tutelage.web.masks import marked
from tutelage.web.pages.parts import Operator, Parts, Templates

router = APIRouter(prefix="/operate", include_in_schema=False)
SHOWN = 200


class Review(BaseModel):
    """A word on a dialogue that was handed in."""

    decision: Literal["accepted", "sent_back"]
    note: str = Field(default="", max_length=4000)
    texts: list[Annotated[str, Field(max_length=32_000)]] | None = Field(default=None, max_length=100)


class Settlement(BaseModel):
    """The order that stands: a rank for each candidate in the order shown, the same one for a tie."""

    ranks: list[Annotated[str, Field(max_length=2)]] = Field(max_length=9)
    gold: bool = False
    note: str = Field(default="", max_length=4000)


@router.get("/demonstrations")
def demonstrations(
    request: Request,
    user: Operator,
    parts: Parts,
    pages: Templates,
    status: DemonstrationStatus = "submitted",
) -> Response:
    """Dialogues that trainers wrote, masked as a model would learn from them."""
    with parts.store.read() as tx:
        rows = labelling.list_demonstrations(tx, status=status, limit=SHOWN)
    return pages.page(
        request,
        "operate_demonstrations.html",
        user=user,
        place="operate",
        tab="demonstrations",
        rows=rows,
        status=status,
        learnt=lambda text: marked(mask(text)),
        masked={
            row.id for row in rows if any(mask(each["content"]) != each["content"] for each in row.messages)
        },
    )


@router.post("/demonstrations/{demonstration_id}", status_code=204)
def review(demonstration_id: str, body: Review, user: Operator, parts: Parts) -> None:
    """Accept a dialogue for training, or send it back to its writer."""
    with parts.store.write() as tx:
        labelling.review_demonstration(tx, demonstration_id, by=user.id, **body.model_dump())


@router.get("/agreement")
def agreement(request: Request, user: Operator, parts: Parts, pages: Templates) -> Response:
    """How far annotators agree, who is reliable, and where they disagree most."""
    with parts.store.read() as tx:
        found = labelling.agreement(tx)
        flagged = labelling.flagged_tasks(tx)
    return pages.page(
        request,
        "operate_agreement.html",
        user=user,
        place="operate",
        tab="agreement",
        found=found,
        alpha=_interval(found.alpha),
        disagreements=found.disagreements[:SHOWN],
        flagged=flagged,
        percent=_percent,
    )


@router.get("/tasks/{task_id}")
def task(request: Request, task_id: str, user: Operator, parts: Parts, pages: Templates) -> Response:
    """One task: the conversation, the candidates, and the rank that each annotator gave."""
    with parts.store.read() as tx:
        found = labelling.labelled_task(tx, task_id)
    return pages.page(
        request,
        "operate_task.html",
        user=user,
        place="operate",
        tab="agreement",
        task=found,
        html=lambda text: Markup(markdown.render(text)),
    )


@router.post("/tasks/{task_id}", status_code=204)
def settle(task_id: str, body: Settlement, user: Operator, parts: Parts) -> None:
    """Say what the order is, in place of those who disagree."""
    with parts.store.write() as tx:
        ids = [row.id for row in labelling.labelled_task(tx, task_id).candidates]
        groups, unrankable = groups_of(ids, body.ranks)
        labelling.adjudicate(
            tx, task_id, by=user.id, groups=groups, unrankable=unrankable, gold=body.gold, note=body.note
        )


def groups_of(ids: Sequence[str], ranks: Sequence[str]) -> tuple[list[list[str]], list[str]]:
    """Groups best first, and what was not rankable. Raises InvalidRequest."""
    if len(ids) != len(ranks) or not all(rank.strip() == "" or rank.strip().isdecimal() for rank in ranks):
        raise InvalidRequest("Each answer has a rank, or none.", param="ranks", hint="Use 1, 2, 3, …")
    given: dict[int, list[str]] = {}
    for name, rank in zip(ids, ranks, strict=True):
        if rank.strip():
            given.setdefault(int(rank), []).append(name)
    unrankable = [name for name, rank in zip(ids, ranks, strict=True) if not rank.strip()]
    return [given[rank] for rank in sorted(given)], unrankable


def _interval(estimate: Estimate) -> str:
    if estimate.value is None or estimate.low is None or estimate.high is None:
        return "–"
    return f"{estimate.value:.2f} ({estimate.low:.2f} – {estimate.high:.2f})"


def _percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.0f} %"
