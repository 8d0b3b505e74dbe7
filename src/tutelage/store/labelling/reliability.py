"""How far annotators agree with each other and with known orders, and how much each of them should count.

Two people agree on a pair of answers when they put it into the same order; where one of them ties it, they agree by
half. Answers that somebody could not rank take no part for them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

from sqlalchemy import select
from sqlalchemy.orm import Session

from tutelage.store.labelling.agreement import Estimate, alpha_with_interval
from tutelage.store.tables import LabellingTask, Ranking, User

HUMAN = 0.73
"""What people usually agree on when they compare two answers."""
PRIOR_PAIRS = 20
"""As many pairs of an annotator's own count as much as what is known of people in general."""

Signs = Mapping[tuple[str, str], int]
"""Pairs of candidates with a < b, to 1 where the first is better, −1 where the second is, 0 where they are tied."""


@dataclass(frozen=True, slots=True)
class Share:
    """So many of so many pairs; a tie counts half."""

    right: float = 0.0
    pairs: int = 0

    @property
    def value(self) -> float | None:
        return self.right / self.pairs if self.pairs else None

    def plus(self, other: Share) -> Share:
        return Share(self.right + other.right, self.pairs + other.pairs)


@dataclass(frozen=True, slots=True)
class Annotator:
    """One person's record. `reliability` is how often they are probably right about a pair."""

    id: str
    name: str
    rankings: int
    pairs: int
    consensus: Share
    gold: Share
    as_it_came: int

    @property
    def reliability(self) -> float:
        known = self.consensus.plus(self.gold)
        return (known.right + HUMAN * PRIOR_PAIRS) / (known.pairs + PRIOR_PAIRS)


@dataclass(frozen=True, slots=True)
class Disagreement:
    """A task whose annotators agree least, not settled yet."""

    task_id: str
    annotators: int
    agreement: float


@dataclass(frozen=True, slots=True)
class Agreement:
    """All of it. `effective` is how many pairs judged without error would tell as much as those judged here."""

    alpha: Estimate
    pairwise: Share
    annotators: tuple[Annotator, ...]
    judged: int
    effective: float
    disagreements: tuple[Disagreement, ...]


def agreement(tx: Session, *, seed: int = 0) -> Agreement:
    """Over all rankings that annotators handed in; adjudications are not among them."""
    gold = {
        task_id: signs(groups or ())
        for task_id, groups in tx.execute(
            select(LabellingTask.id, LabellingTask.gold).where(LabellingTask.gold.is_not(None))
        )
    }
    tasks: dict[str, list[Ranking]] = defaultdict(list)
    for row in tx.scalars(select(Ranking).where(~Ranking.adjudication).order_by(Ranking.id)):
        tasks[row.task_id].append(row)
    alpha = alpha_with_interval({task: _units(rows) for task, rows in tasks.items()}, seed=seed)
    shares = {task: _among(rows) for task, rows in tasks.items()}
    pairwise = Share()
    for share in shares.values():
        pairwise = pairwise.plus(share)
    people = _annotators(tx, tasks, gold)
    effective = sum(each.pairs * (2 * each.reliability - 1) ** 2 for each in people)
    settled = set(tx.scalars(select(Ranking.task_id).where(Ranking.adjudication)))
    open_ = [
        Disagreement(task, len(tasks[task]), share.value)
        for task, share in shares.items()
        if share.value is not None and share.value < 1 and task not in settled
    ]
    open_.sort(key=lambda each: (each.agreement, each.task_id))
    judged = sum(each.pairs for each in people)
    return Agreement(alpha, pairwise, tuple(people), judged, effective, tuple(open_))


def reliability_weights(tx: Session) -> dict[str, float]:
    """How much each annotator's pairs should count in training: 0 for guessing, 1 on average over all pairs."""
    people = agreement(tx).annotators
    raw = {each.id: max(0.0, 2 * each.reliability - 1) for each in people}
    pairs = sum(each.pairs for each in people)
    mean = sum(raw[each.id] * each.pairs for each in people) / pairs if pairs else 0.0
    return {name: round(weight / mean, 4) for name, weight in raw.items()} if mean else {}


def signs(groups: Sequence[Sequence[str]]) -> dict[tuple[str, str], int]:
    """The order of each pair in a ranking."""
    rank = {name: number for number, group in enumerate(groups) for name in group}
    return {(a, b): (rank[a] < rank[b]) - (rank[a] > rank[b]) for a, b in combinations(sorted(rank), 2)}


def compare(mine: Signs, other: Signs) -> Share:
    """How far two orders agree, over the pairs that both judged."""
    both = mine.keys() & other.keys()
    return Share(sum(1 - abs(mine[pair] - other[pair]) / 2 for pair in both), len(both))


def _units(rows: Sequence[Ranking]) -> list[list[float]]:
    """For each candidate the ranks it was given; tied ones share the middle of their places."""
    given: dict[str, list[float]] = defaultdict(list)
    for row in rows:
        place = 0
        for group in row.groups:
            for name in group:
                given[name].append(place + (len(group) + 1) / 2)
            place += len(group)
    return list(given.values())


def _among(rows: Sequence[Ranking]) -> Share:
    found = Share()
    for one, other in combinations([signs(row.groups) for row in rows], 2):
        found = found.plus(compare(one, other))
    return found


def _annotators(
    tx: Session, tasks: Mapping[str, Sequence[Ranking]], gold: Mapping[str, Signs]
) -> list[Annotator]:
    names = {user_id: name for user_id, name in tx.execute(select(User.id, User.name)) if name}
    rows: dict[str, list[Ranking]] = defaultdict(list)
    against: dict[str, Share] = defaultdict(Share)
    for _, row, others in _one_against_others(tasks):
        if row.annotator_id is not None:
            rows[row.annotator_id].append(row)
            against[row.annotator_id] = against[row.annotator_id].plus(
                compare(signs(row.groups), _consensus(others))
            )
    return [
        Annotator(
            id=name,
            name=names.get(name, "–"),
            rankings=len(mine),
            pairs=sum(len(signs(row.groups)) for row in mine),
            consensus=against[name],
            gold=_against_gold(mine, gold),
            as_it_came=sum(row.as_it_came for row in mine),
        )
        for name, mine in sorted(rows.items())
    ]


def _one_against_others(
    tasks: Mapping[str, Sequence[Ranking]],
) -> Iterator[tuple[str, Ranking, list[Ranking]]]:
    for task, rows in tasks.items():
        for row in rows:
            yield task, row, [other for other in rows if other is not row]


def _consensus(rows: Sequence[Ranking]) -> dict[tuple[str, str], int]:
    """What most of some people say about each pair; pairs on which they are split are left out."""
    votes: dict[tuple[str, str], int] = defaultdict(int)
    for row in rows:
        for pair, sign in signs(row.groups).items():
            votes[pair] += sign
    return {pair: 1 if vote > 0 else -1 for pair, vote in votes.items() if vote}


def _against_gold(rows: Sequence[Ranking], gold: Mapping[str, Signs]) -> Share:
    found = Share()
    for row in rows:
        if row.task_id in gold:
            found = found.plus(compare(signs(row.groups), gold[row.task_id]))
    return found
