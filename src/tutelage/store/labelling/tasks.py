"""Ranking tasks in people's hands: taking one, holding it, leaving it.

A task is a model-written message out of a real conversation with other answers to the same prompt. Who holds it
is a row in `leases`, taken in the transaction that looks for the task: two people never hold the same place, and
nobody is given a task twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store.dialogues import path
from tutelage.store.ids import now
from tutelage.store.labelling.draws import draw_message, fair
from tutelage.store.tables import Candidate, Dialogue, LabellingTask, Lease, Message

LEASE = timedelta(minutes=15)
_NEXT = "Take the next task."


@dataclass(frozen=True, slots=True, kw_only=True)
class RankingTask:
    """A task in one annotator's hands. `prompt` is the conversation up to the question, root first.

    `candidates` are in the order to show; empty until `set_candidates`. `k` is how many there should be, the
    answer that was given in the conversation (`message`) included.
    """

    id: str
    dialogue_id: str
    message: Message
    prompt: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    k: int
    expires: datetime


def next_ranking_task(
    tx: Session,
    *,
    annotator_id: str,
    k: int,
    rng: random.Random,
    lease: timedelta = LEASE,
    overlap: int = 1,
    gold_share: float = 0.0,
    own_writing: bool = False,
) -> RankingTask | None:
    """A task for this annotator, leased to them; None when there is nothing left that they may rank.

    A task they still hold comes back with its lease renewed. Else, with probability `gold_share`, one whose order
    is known; else a task with room is taken up, else a new one is made: a random eligible dialogue, then a random
    message of it (see `draws`). `own_writing` lets people rank answers to their own words, for an installation
    with one person. `overlap` is how many people shall rank a new task.
    """
    if k < 2:
        raise InvalidRequest("A ranking needs at least 2 candidates.", param="k")
    held = _held_task(tx, annotator_id)
    if held is not None:
        return renew_lease(tx, held.id, annotator_id, lease=lease)
    mine = select(LabellingTask).join(Message, Message.id == LabellingTask.message_id)
    mine = mine.join(Dialogue, Dialogue.id == LabellingTask.dialogue_id)
    mine = mine.where(fair(annotator_id, own_writing=own_writing))
    task = _gold_task(tx, mine, rng) if rng.random() < gold_share else None
    task = task or _task_with_room(tx, mine, annotator_id)
    if task is None:
        message = draw_message(tx, annotator_id, rng, own_writing=own_writing)
        if message is None:
            return None
        task = _new_task(tx, message, k=k, overlap=overlap)
    tx.add(Lease(task_id=task.id, annotator_id=annotator_id, expires=now() + lease))
    tx.flush()
    return view(tx, task, annotator_id)


def ranking_task(tx: Session, task_id: str, annotator_id: str) -> RankingTask:
    """A task the annotator holds. Raises NotFound, Conflict when the lease is gone."""
    return view(tx, leased(tx, task_id, annotator_id), annotator_id)


def renew_lease(tx: Session, task_id: str, annotator_id: str, *, lease: timedelta = LEASE) -> RankingTask:
    """Hold a task for longer. A lease that ran out is renewed too while nobody took the place.

    Raises Conflict when the lease is gone.
    """
    task = leased(tx, task_id, annotator_id)
    held = lease_of(tx, task_id, annotator_id)
    assert held is not None
    held.expires = now() + lease
    tx.flush()
    return view(tx, task, annotator_id)


def release(tx: Session, task_id: str, annotator_id: str, *, reason: str = "", flagged: bool = False) -> None:
    """Skip a task: others may take it, this annotator is not given it again. A flag asks operators to look at it.

    Raises NotFound when the annotator was never given the task, Conflict when they have ranked it.
    """
    held = lease_of(tx, task_id, annotator_id)
    if held is None:
        raise NotFound("There is no such task.")
    if held.status == "done":
        raise Conflict("You have ranked this task already.", hint=_NEXT)
    held.status, held.reason, held.flagged = "released", reason, flagged
    tx.flush()


def flagged_tasks(tx: Session, *, limit: int = 100) -> Sequence[Lease]:
    """What annotators want operators to look at, newest first."""
    return tx.scalars(select(Lease).where(Lease.flagged).order_by(Lease.id.desc()).limit(limit)).all()


def leased(tx: Session, task_id: str, annotator_id: str) -> LabellingTask:
    """The task, if the annotator holds it or may take it up again where nobody took their place.

    Raises NotFound; Conflict also where the owner of the conversation does not let it be used any more.
    """
    held = lease_of(tx, task_id, annotator_id)
    if held is None:
        raise NotFound("There is no such task.")
    if held.status == "done":
        raise Conflict("You have ranked this task already.", hint=_NEXT)
    query = select(LabellingTask).join(Dialogue, Dialogue.id == LabellingTask.dialogue_id)
    task = tx.scalar(query.where(LabellingTask.id == task_id, Dialogue.consent, _has_room(annotator_id)))
    if held.status == "released" or task is None:
        raise Conflict("This task is not yours any more.", hint=_NEXT)
    return task


def lease_of(tx: Session, task_id: str, annotator_id: str) -> Lease | None:
    """An annotator's lease on a task, whatever became of it."""
    query = select(Lease).where(Lease.task_id == task_id, Lease.annotator_id == annotator_id)
    return tx.scalar(query)


def candidates_of(tx: Session, task_id: str) -> Sequence[Candidate]:
    """In the order to show."""
    query = select(Candidate).where(Candidate.task_id == task_id)
    return tx.scalars(query.order_by(Candidate.position)).all()


def view(tx: Session, task: LabellingTask, annotator_id: str) -> RankingTask:
    """A task as its annotator works on it."""
    turns = path(tx, task.message_id)
    held = lease_of(tx, task.id, annotator_id)
    assert held is not None
    return RankingTask(
        id=task.id,
        dialogue_id=task.dialogue_id,
        message=turns[-1],
        prompt=tuple(turns[:-1]),
        candidates=tuple(candidates_of(tx, task.id)),
        k=task.k,
        expires=held.expires,
    )


def _held_task(tx: Session, annotator_id: str) -> LabellingTask | None:
    query = select(LabellingTask).join(Lease, Lease.task_id == LabellingTask.id)
    query = query.join(Dialogue, Dialogue.id == LabellingTask.dialogue_id).where(Dialogue.consent)
    query = query.where(Lease.annotator_id == annotator_id, Lease.status == "held", Lease.expires > now())
    return tx.scalar(query.order_by(Lease.id).limit(1))


def _gold_task(tx: Session, mine: Select[Any], rng: random.Random) -> LabellingTask | None:
    gold = mine.where(LabellingTask.gold.is_not(None)).order_by(LabellingTask.id)
    tasks: Sequence[LabellingTask] = tx.scalars(gold).all()
    return rng.choice(tasks) if tasks else None


def _task_with_room(tx: Session, mine: Select[Any], annotator_id: str) -> LabellingTask | None:
    open_ = mine.where(LabellingTask.remaining > 0, _has_room(annotator_id))
    task: LabellingTask | None = tx.scalar(open_.order_by(LabellingTask.id).limit(1))
    return task


def _has_room(annotator_id: str) -> ColumnElement[bool]:
    """Fewer others hold a task than rankings are wanted. What everybody is given once always has room."""
    others = (Lease.task_id == LabellingTask.id) & (Lease.annotator_id != annotator_id)
    holding = (Lease.status == "held") & (Lease.expires > now())
    taken = select(func.count()).select_from(Lease).where(others, holding).scalar_subquery()
    return LabellingTask.gold.is_not(None) | (taken < LabellingTask.remaining)


def _new_task(tx: Session, message: Message, *, k: int, overlap: int) -> LabellingTask:
    task = LabellingTask(dialogue_id=message.dialogue_id, message_id=message.id, k=k, overlap=overlap)
    task.remaining = overlap
    tx.add(task)
    tx.flush()
    return task
