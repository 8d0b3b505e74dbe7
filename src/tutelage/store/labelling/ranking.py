"""Answers to rank.

A ranking task is a model-written message out of a real conversation with other answers to the same prompt.
Who holds a task is a row in `leases`, taken in the transaction that looks for the task: two people never
hold the same place, and nobody is given a task twice.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, func, or_, select
from sqlalchemy.orm import Session, aliased

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store.dialogues import path
from tutelage.store.ids import now
from tutelage.store.tables import Candidate, Dialogue, LabellingTask, Lease, Message, Ranking
from tutelage.store.trees import trainable

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
    own_writing: bool = False,
) -> RankingTask | None:
    """A task for this annotator, leased to them; None when there is nothing left that they may rank.

    A task they still hold comes back with its lease renewed. Else a task with room is taken up, else a new
    one is made: a random eligible dialogue, then a random message of it. Eligible are complete messages that
    a model wrote, in dialogues whose owners consent, with nothing blocked or broken off before them, not
    answers to the annotator's own words. `own_writing` lifts the last rule, for an installation with one
    person. `overlap` is how many people shall rank a new task.
    """
    if k < 2:
        raise InvalidRequest("A ranking needs at least 2 candidates.", param="k")
    held = _held_task(tx, annotator_id)
    if held is not None:
        return renew_lease(tx, held.id, annotator_id, lease=lease)
    fair = _fair(annotator_id, own_writing=own_writing)
    task = _task_with_room(tx, annotator_id, fair) or _new_task(tx, fair, rng, k=k, overlap=overlap)
    if task is None:
        return None
    tx.add(Lease(task_id=task.id, annotator_id=annotator_id, expires=now() + lease))
    tx.flush()
    return _ranking_task(tx, task, annotator_id)


def set_candidates(
    tx: Session,
    task_id: str,
    annotator_id: str,
    candidates: Sequence[dict[str, Any]],
    *,
    rng: random.Random | None = None,
) -> RankingTask:
    """Store fresh samples ({content, model_version, sampling}) beside the original answer, shuffled.

    When the task has candidates already, they stay as they are. Raises Conflict when the lease is gone,
    InvalidRequest when there is no sample.
    """
    task = _leased(tx, task_id, annotator_id)
    if _candidates(tx, task_id):
        return _ranking_task(tx, task, annotator_id)
    if not candidates:
        raise InvalidRequest("A ranking needs at least 2 candidates.", param="candidates")
    answer = _message(tx, task)
    original = Candidate(content=answer.content, model_version=answer.model_version, original=True)
    original.sampling = answer.sampling
    rows = [original, *(_candidate(sample) for sample in candidates)]
    (rng or random.SystemRandom()).shuffle(rows)
    for position, row in enumerate(rows):
        row.task_id, row.position = task_id, position
    tx.add_all(rows)
    tx.flush()
    return _ranking_task(tx, task, annotator_id)


def ranking_task(tx: Session, task_id: str, annotator_id: str) -> RankingTask:
    """A task the annotator holds. Raises NotFound, Conflict when the lease is gone."""
    return _ranking_task(tx, _leased(tx, task_id, annotator_id), annotator_id)


def renew_lease(tx: Session, task_id: str, annotator_id: str, *, lease: timedelta = LEASE) -> RankingTask:
    """Hold a task for longer. A lease that ran out is renewed too while nobody took the place.

    Raises Conflict when the lease is gone.
    """
    task = _leased(tx, task_id, annotator_id)
    held = _lease(tx, task_id, annotator_id)
    assert held is not None
    held.expires = now() + lease
    tx.flush()
    return _ranking_task(tx, task, annotator_id)


def release(tx: Session, task_id: str, annotator_id: str, *, reason: str = "") -> None:
    """Skip a task: others may take it, this annotator is not given it again.

    Raises NotFound when the annotator was never given the task, Conflict when they have ranked it.
    """
    held = _lease(tx, task_id, annotator_id)
    if held is None:
        raise NotFound("There is no such task.")
    if held.status == "done":
        raise Conflict("You have ranked this task already.", hint=_NEXT)
    held.status, held.reason = "released", reason
    tx.flush()


def submit_ranking(
    tx: Session,
    *,
    task_id: str,
    annotator_id: str,
    groups: Sequence[Sequence[str]],
    unrankable: Sequence[str] = (),
    all_bad: bool = False,
    note: str = "",
) -> Ranking:
    """Hand in an order: groups of candidate ids, best first; one group is a tie.

    Each candidate stands in a group or is unrankable; with `all_bad` and no groups, all are unrankable.
    Raises Conflict when the lease is gone or a ranking was handed in already, InvalidRequest otherwise.
    """
    _leased(tx, task_id, annotator_id)
    known = [candidate.id for candidate in _candidates(tx, task_id)]
    groups = [list(group) for group in groups if group]
    if all_bad and not groups:
        unrankable = known
    _check_order(known, [*(name for group in groups for name in group), *unrankable])
    if not groups and not all_bad:
        raise InvalidRequest("No candidate is ranked.", param="groups", hint="Say that all are bad, or skip.")
    ranking = Ranking(task_id=task_id, annotator_id=annotator_id, groups=groups, unrankable=list(unrankable))
    ranking.all_bad, ranking.note = all_bad, note
    held = _lease(tx, task_id, annotator_id)
    assert held is not None
    held.status = "done"
    tx.add(ranking)
    tx.flush()
    return ranking


def rankings_by(tx: Session, annotator_id: str, *, limit: int = 100) -> Sequence[Ranking]:
    """What an annotator has ranked, newest first."""
    mine = select(Ranking).where(Ranking.annotator_id == annotator_id)
    return tx.scalars(mine.order_by(Ranking.id.desc()).limit(limit)).all()


def count_rankings(tx: Session) -> int:
    """How many rankings have been handed in."""
    return tx.scalar(select(func.count()).select_from(Ranking)) or 0


def _check_order(known: Sequence[str], named: Sequence[str]) -> None:
    if not known:
        raise InvalidRequest("This task has no candidates yet.", param="task_id")
    unknown = set(named) - set(known)
    if unknown:
        raise InvalidRequest("There is no such candidate in this task.", param="groups")
    if len(named) != len(known):
        raise InvalidRequest("Each candidate is ranked once, or marked as not rankable.", param="groups")


def _fair(annotator_id: str, *, own_writing: bool) -> ColumnElement[bool]:
    """What an annotator may rank, as a condition on Dialogue, Message and its prompt."""
    allowed = Dialogue.consent & Dialogue.temporary.is_(False)
    seen = select(Lease.id).join(LabellingTask, LabellingTask.id == Lease.task_id)
    seen = seen.where(LabellingTask.message_id == Message.id, Lease.annotator_id == annotator_id)
    allowed &= ~seen.exists()
    if own_writing:
        return allowed
    prompt = aliased(Message)
    own = select(prompt.id).where(prompt.id == Message.parent_id, prompt.author_id == annotator_id)
    return allowed & or_(Dialogue.owner_id.is_(None), Dialogue.owner_id != annotator_id) & ~own.exists()


def _task_with_room(tx: Session, annotator_id: str, fair: ColumnElement[bool]) -> LabellingTask | None:
    query = select(LabellingTask).join(Message, Message.id == LabellingTask.message_id)
    query = query.join(Dialogue, Dialogue.id == LabellingTask.dialogue_id)
    return tx.scalar(query.where(fair, _has_room(annotator_id)).order_by(LabellingTask.id).limit(1))


def _has_room(annotator_id: str) -> ColumnElement[bool]:
    """Fewer people than wanted have ranked a task or hold it; the annotator's own lease does not count."""
    others = (Lease.task_id == LabellingTask.id) & (Lease.annotator_id != annotator_id)
    active = (Lease.status == "done") | ((Lease.status == "held") & (Lease.expires > now()))
    taken = select(func.count()).select_from(Lease).where(others, active).scalar_subquery()
    return taken < LabellingTask.overlap


def _new_task(
    tx: Session, fair: ColumnElement[bool], rng: random.Random, *, k: int, overlap: int
) -> LabellingTask | None:
    message = _random_message(tx, fair, rng)
    if message is None:
        return None
    task = LabellingTask(dialogue_id=message.dialogue_id, message_id=message.id, k=k, overlap=overlap)
    tx.add(task)
    tx.flush()
    return task


def _random_message(tx: Session, fair: ColumnElement[bool], rng: random.Random) -> Message | None:
    fresh = ~select(LabellingTask.id).where(LabellingTask.message_id == Message.id).exists()
    written = (Message.author_kind == "model") & (Message.status == "complete")
    query = select(Message.dialogue_id, Message.id).join(Dialogue, Dialogue.id == Message.dialogue_id)
    query = query.where(Message.role == "assistant", written, fresh, fair)
    by_dialogue: dict[str, list[str]] = {}
    for dialogue_id, message_id in tx.execute(query.order_by(Message.id)):
        by_dialogue.setdefault(dialogue_id, []).append(message_id)
    for dialogue_id in rng.sample(sorted(by_dialogue), len(by_dialogue)):
        messages = by_dialogue[dialogue_id]
        for message_id in rng.sample(messages, len(messages)):
            turns = path(tx, message_id)
            if trainable(turns):
                return turns[-1]
    return None


def _held_task(tx: Session, annotator_id: str) -> LabellingTask | None:
    query = select(LabellingTask).join(Lease, Lease.task_id == LabellingTask.id)
    query = query.join(Dialogue, Dialogue.id == LabellingTask.dialogue_id).where(Dialogue.consent)
    query = query.where(Lease.annotator_id == annotator_id, Lease.status == "held", Lease.expires > now())
    return tx.scalar(query.order_by(Lease.id).limit(1))


def _leased(tx: Session, task_id: str, annotator_id: str) -> LabellingTask:
    """The task, if the annotator holds it or may take it up again where nobody took their place."""
    held = _lease(tx, task_id, annotator_id)
    if held is None:
        raise NotFound("There is no such task.")
    if held.status == "done":
        raise Conflict("You have ranked this task already.", hint=_NEXT)
    task = tx.scalar(select(LabellingTask).where(LabellingTask.id == task_id, _has_room(annotator_id)))
    if held.status == "released" or task is None:
        raise Conflict("This task is not yours any more.", hint=_NEXT)
    return task


def _lease(tx: Session, task_id: str, annotator_id: str) -> Lease | None:
    query = select(Lease).where(Lease.task_id == task_id, Lease.annotator_id == annotator_id)
    return tx.scalar(query)


def _candidates(tx: Session, task_id: str) -> Sequence[Candidate]:
    query = select(Candidate).where(Candidate.task_id == task_id)
    return tx.scalars(query.order_by(Candidate.position)).all()


def _candidate(sample: dict[str, Any]) -> Candidate:
    row = Candidate(content=sample["content"], model_version=sample.get("model_version"))
    row.sampling = sample.get("sampling")
    return row


def _message(tx: Session, task: LabellingTask) -> Message:
    return tx.get_one(Message, task.message_id)


def _ranking_task(tx: Session, task: LabellingTask, annotator_id: str) -> RankingTask:
    turns = path(tx, task.message_id)
    held = _lease(tx, task.id, annotator_id)
    assert held is not None
    return RankingTask(
        id=task.id,
        dialogue_id=task.dialogue_id,
        message=turns[-1],
        prompt=tuple(turns[:-1]),
        candidates=tuple(_candidates(tx, task.id)),
        k=task.k,
        expires=held.expires,
    )
