"""What is ranked, and the rankings that are handed in."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.errors import InvalidRequest, NotFound
from tutelage.store.dialogues import path
from tutelage.store.labelling.demonstrations import save_demonstration
from tutelage.store.labelling.provenance import provenance
from tutelage.store.labelling.tasks import RankingTask, candidates_of, lease_of, leased, view
from tutelage.store.tables import Candidate, Demonstration, Dialogue, LabellingTask, Message, Ranking


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
    task = leased(tx, task_id, annotator_id)
    if candidates_of(tx, task_id):
        return view(tx, task, annotator_id)
    if not candidates:
        raise InvalidRequest("A ranking needs at least 2 candidates.", param="candidates")
    answer = tx.get_one(Message, task.message_id)
    original = Candidate(content=answer.content, model_version=answer.model_version, original=True)
    original.sampling = answer.sampling
    rows = [original, *(_candidate(sample) for sample in candidates)]
    (rng or random.SystemRandom()).shuffle(rows)
    for position, row in enumerate(rows):
        row.task_id, row.position = task_id, position
    tx.add_all(rows)
    tx.flush()
    return view(tx, task, annotator_id)


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
    task = leased(tx, task_id, annotator_id)
    ranking = _ranking(tx, task, groups, unrankable, all_bad=all_bad)
    ranking.annotator_id, ranking.note = annotator_id, note
    held = lease_of(tx, task_id, annotator_id)
    assert held is not None
    held.status = "done"
    task.remaining = max(0, task.remaining - 1)
    tx.add(ranking)
    tx.flush()
    return ranking


def adjudicate(
    tx: Session,
    task_id: str,
    *,
    by: str,
    groups: Sequence[Sequence[str]],
    unrankable: Sequence[str] = (),
    gold: bool = False,
    note: str = "",
) -> Ranking:
    """Settle a task's order, for all who ranked it; sent again, it replaces the first.

    With `gold` the order becomes the right one against which everybody is measured from then on.
    Raises NotFound, InvalidRequest as `submit_ranking`.
    """
    task = tx.get(LabellingTask, task_id)
    if task is None:
        raise NotFound("There is no such task.")
    ranking = _ranking(tx, task, groups, unrankable, all_bad=not groups)
    mine = select(Ranking).where(Ranking.task_id == task_id, Ranking.annotator_id == by)
    kept = tx.scalar(mine) or Ranking(task_id=task_id, annotator_id=by)
    kept.groups, kept.unrankable, kept.all_bad = ranking.groups, ranking.unrankable, ranking.all_bad
    kept.note, kept.adjudication, kept.as_it_came = note, True, False
    task.gold, task.remaining = (ranking.groups if gold else None), 0
    tx.add(kept)
    tx.flush()
    return kept


def fix_candidate(
    tx: Session, *, task_id: str, annotator_id: str, candidate_id: str, content: str, accepted: bool = False
) -> Demonstration:
    """A candidate as its annotator would have written it, kept as a demonstration.

    Raises Conflict when the lease is gone, InvalidRequest for an unknown candidate or a text without a change.
    """
    task = leased(tx, task_id, annotator_id)
    candidate = tx.get(Candidate, candidate_id)
    if candidate is None or candidate.task_id != task_id:
        raise InvalidRequest("There is no such candidate in this task.", param="fixes")
    if content.strip() == candidate.content.strip():
        raise InvalidRequest("This answer was not changed.", param="fixes")
    kept = provenance(content, [candidate.content], candidate.content)
    turns: list[dict[str, Any]] = [
        {"role": row.role, "content": row.content} for row in path(tx, task.message_id)[:-1]
    ]
    turns.append(
        {
            "role": "assistant",
            "content": content.strip(),
            "provenance": kept | {"model_version": candidate.model_version},
        }
    )
    status: Literal["accepted", "submitted"] = "accepted" if accepted else "submitted"
    return save_demonstration(
        tx, author_id=annotator_id, messages=turns, status=status, message_id=task.message_id
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledTask:
    """A task as a reviewer sees it: `ranks` holds, for each ranking, a rank for each candidate or None."""

    id: str
    gold: bool
    prompt: tuple[Message, ...]
    candidates: tuple[Candidate, ...]
    rankings: tuple[Ranking, ...]

    def ranks(self, ranking: Ranking) -> list[int | None]:
        """From 1, in the order of the candidates; None for what could not be ranked."""
        place = {name: rank for rank, group in enumerate(ranking.groups, 1) for name in group}
        return [place.get(candidate.id) for candidate in self.candidates]


def labelled_task(tx: Session, task_id: str) -> LabelledTask:
    """Raises NotFound, also where the conversation may not be used any more."""
    row = tx.get(LabellingTask, task_id)
    dialogue = None if row is None else tx.get(Dialogue, row.dialogue_id)
    if row is None or dialogue is None or not dialogue.consent:
        raise NotFound("There is no such task.")
    query = select(Ranking).where(Ranking.task_id == task_id).order_by(Ranking.adjudication, Ranking.id)
    return LabelledTask(
        id=task_id,
        gold=row.gold is not None,
        prompt=tuple(path(tx, row.message_id)[:-1]),
        candidates=tuple(candidates_of(tx, task_id)),
        rankings=tuple(tx.scalars(query)),
    )


def rankings_by(tx: Session, annotator_id: str, *, limit: int = 100) -> Sequence[Ranking]:
    """What an annotator has ranked, newest first."""
    mine = select(Ranking).where(Ranking.annotator_id == annotator_id)
    return tx.scalars(mine.order_by(Ranking.id.desc()).limit(limit)).all()


def _ranking(
    tx: Session,
    task: LabellingTask,
    groups: Sequence[Sequence[str]],
    unrankable: Sequence[str],
    *,
    all_bad: bool,
) -> Ranking:
    known = [candidate.id for candidate in candidates_of(tx, task.id)]
    groups = [list(group) for group in groups if group]
    if all_bad and not groups:
        unrankable = known
    _check_order(known, [*(name for group in groups for name in group), *unrankable])
    if not groups and not all_bad:
        raise InvalidRequest("No candidate is ranked.", param="groups", hint="Say that all are bad, or skip.")
    return Ranking(
        task_id=task.id,
        groups=groups,
        unrankable=list(unrankable),
        all_bad=all_bad,
        as_it_came=groups == [[name] for name in known],
    )


def _check_order(known: Sequence[str], named: Sequence[str]) -> None:
    if not known:
        raise InvalidRequest("This task has no candidates yet.", param="task_id")
    unknown = set(named) - set(known)
    if unknown:
        raise InvalidRequest("There is no such candidate in this task.", param="groups")
    if len(named) != len(known):
        raise InvalidRequest("Each candidate is ranked once, or marked as not rankable.", param="groups")


def _candidate(sample: dict[str, Any]) -> Candidate:
    row = Candidate(content=sample["content"], model_version=sample.get("model_version"))
    row.sampling = sample.get("sampling")
    return row
