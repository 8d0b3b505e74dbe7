"""Two versions in the chat at once, and what people think of each."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session, aliased

from tutelage.errors import Conflict, InvalidRequest, NotFound
from tutelage.store.ids import now
from tutelage.store.settings import read_setting, write_setting
from tutelage.store.tables import Candidate, Experiment, ExperimentStatus, Message, Pick, Ranking, Rating

Arm = Literal["control", "treatment"]
SETTING = "experiments"
PAIRS = 0.05
"""The share of turns that show both versions, unless an operator says otherwise."""


def start_experiment(
    tx: Session, *, control: str, treatment: str, share: float, by: str, pairs: float = PAIRS
) -> Experiment:
    """Let `treatment` answer a share of new conversations, and show both versions at a share `pairs` of turns.

    Raises Conflict while another one runs, InvalidRequest.
    """
    if running_experiment(tx) is not None:
        raise Conflict("Two versions are being compared already.", hint="End that comparison first.")
    if not 0 < share <= 0.5:
        raise InvalidRequest("The share lies above 0 and is at most a half.", param="share")
    if not 0 <= pairs <= 1:
        raise InvalidRequest("The share of pairs lies between 0 and 1.", param="pairs")
    if control == treatment:
        raise InvalidRequest("A version cannot be compared with itself.", param="treatment")
    row = Experiment(control=control, treatment=treatment, share=share, started_by=by)
    tx.add(row)
    write_setting(tx, SETTING, {"pairs": pairs})
    return row


def pairs_share(tx: Session) -> float:
    """At which share of turns both versions answer, side by side, though nobody asked for two."""
    return float(read_setting(tx, SETTING).get("pairs", PAIRS))


def running_experiment(tx: Session) -> Experiment | None:
    """The one that runs now."""
    return tx.scalar(select(Experiment).where(Experiment.status == "running").limit(1))


def list_experiments(tx: Session, *, limit: int = 20) -> Sequence[Experiment]:
    """Newest first."""
    return tx.scalars(select(Experiment).order_by(Experiment.id.desc()).limit(limit)).all()


def end_experiment(
    tx: Session, experiment_id: str, *, status: ExperimentStatus, result: dict[str, Any]
) -> Experiment:
    """New conversations are answered by the stable version again. Raises NotFound, Conflict when it has ended."""
    row = tx.get(Experiment, experiment_id)
    if row is None:
        raise NotFound("There is no such comparison.")
    if row.status != "running":
        raise Conflict("This comparison has ended already.")
    row.status, row.result, row.ended = status, result, now()
    tx.flush()
    return row


def version_for(experiment: Experiment | None, before: Sequence[Message], rng: random.Random) -> str | None:
    """The version that answers next in a conversation, None for the stable one. A conversation keeps its version."""
    if experiment is None:
        return None
    spoken = [row.model_version for row in before if row.author_kind == "model"]
    drawn = spoken[-1] == experiment.treatment if spoken else rng.random() < experiment.share
    return experiment.treatment if drawn else None


def observations(tx: Session, experiment: Experiment) -> Iterator[tuple[Arm, bool]]:
    """(arm, content?) in the order in which people judged; the first rating of each conversation counts.

    Conversations in which both versions have answered are left out: there the reader chose who goes on.
    """
    query = select(Message.dialogue_id, Message.model_version, Rating.verdict)
    query = query.join(Message, Message.id == Rating.message_id)
    versions = (experiment.control, experiment.treatment)
    spoken = Message.model_version.in_(versions) & (Message.created >= experiment.created)
    both = select(Message.dialogue_id).where(spoken).group_by(Message.dialogue_id)
    both = both.having(func.count(Message.model_version.distinct()) > 1)
    query = query.where(spoken, Message.dialogue_id.not_in(both))
    if experiment.ended is not None:
        query = query.where(Rating.created <= experiment.ended)
    seen: set[str] = set()
    for dialogue_id, version, verdict in tx.execute(query.order_by(Rating.id)):
        if dialogue_id not in seen:
            seen.add(dialogue_id)
            yield ("treatment" if version == experiment.treatment else "control"), verdict == "up"


def compared_pairs(tx: Session) -> Iterator[tuple[str, str, float, str]]:
    """All pairs of answers by known versions that people compared: (first, second, score of the first, group)."""
    yield from _ranked_pairs(tx)
    first, second = aliased(Message), aliased(Message)
    query = select(Pick.id, Pick.verdict, first.model_version, second.model_version)
    query = query.join(first, first.id == Pick.first_id).join(second, second.id == Pick.second_id)
    for pick_id, verdict, one, other in tx.execute(query):
        if one and other:
            yield one, other, {"first": 1.0, "second": 0.0}.get(verdict, 0.5), pick_id


def _ranked_pairs(tx: Session) -> Iterator[tuple[str, str, float, str]]:
    versions = {
        name: version
        for name, version in tx.execute(select(Candidate.id, Candidate.model_version))
        if version
    }
    for ranking in tx.scalars(select(Ranking).where(~Ranking.adjudication)):
        placed = [
            (rank, versions[name])
            for rank, group in enumerate(ranking.groups)
            for name in group
            if name in versions
        ]
        for index, (rank, one) in enumerate(placed):
            for below, other in placed[index + 1 :]:
                yield one, other, 0.5 if rank == below else 1.0, ranking.task_id
