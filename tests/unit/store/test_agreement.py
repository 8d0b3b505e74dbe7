"""Agreement between annotators, by published numbers and by hand."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tutelage.store import Store, accounts, export, labelling
from tutelage.store.labelling.agreement import alpha_with_interval, krippendorff_alpha
from tutelage.store.labelling.reliability import compare, signs
from tutelage.store.tables import Message, Ranking

# Krippendorff 2011, example C: four observers, twelve units, with gaps.
OBSERVERS = (
    "1 2 3 3 2 1 4 1 2 . . .",
    "1 2 3 3 2 2 4 1 2 5 . 3",
    ". 3 3 3 2 3 4 2 2 5 1 .",
    "1 2 3 3 2 4 4 1 2 5 1 .",
)
UNITS = [
    [float(value) for value in column if value != "."]
    for column in zip(*(row.split() for row in OBSERVERS), strict=True)
]


@pytest.mark.parametrize(
    ("metric", "expected"), [("nominal", 0.743), ("ordinal", 0.815), ("interval", 0.849)]
)
def test_the_published_example(metric: str, expected: float) -> None:
    assert krippendorff_alpha(UNITS, metric=metric) == pytest.approx(expected, abs=5e-4)  # type: ignore[arg-type]


def test_two_observers_by_the_published_nominal_example() -> None:
    # Krippendorff 2011, example B: ten units, two observers, nominal: alpha = 0.095 for binary data.
    one, two = "0 1 0 0 0 0 0 0 1 0", "1 1 1 0 0 1 0 0 0 0"
    units = [[float(a), float(b)] for a, b in zip(one.split(), two.split(), strict=True)]
    assert krippendorff_alpha(units, metric="nominal") == pytest.approx(0.095, abs=5e-4)


def test_agreement_of_all_is_one_and_of_none_is_nothing() -> None:
    assert krippendorff_alpha([[1, 1], [2, 2], [3, 3]]) == pytest.approx(1.0)
    assert krippendorff_alpha([[1], [2]]) is None
    assert krippendorff_alpha([[1, 1], [1, 1]]) is None
    assert krippendorff_alpha([[1, 2], [2, 1]]) < 0  # type: ignore[operator]
    assert alpha_with_interval({}).value is None


def test_the_interval_holds_the_value_and_narrows_with_more_tasks() -> None:
    rng = random.Random(0)

    def tasks(count: int) -> dict[int, list[list[float]]]:
        return {
            task: [
                [float(rank), float(rank if rng.random() < 0.7 else rng.randrange(4))] for rank in range(4)
            ]
            for task in range(count)
        }

    few, many = alpha_with_interval(tasks(20)), alpha_with_interval(tasks(400))
    widths = []
    for found in (few, many):
        assert found.low is not None
        assert found.high is not None
        assert found.value is not None
        assert found.low < found.value < found.high
        widths.append(found.high - found.low)
    assert widths[1] < widths[0] / 3


def alpha_by_pairs(units: list[list[float]], metric: str) -> float | None:
    """Alpha by its definition: disagreement of all pairs within units against that of all pairs whatever."""
    units = [unit for unit in units if len(unit) > 1]
    pool = [value for unit in units for value in unit]

    def distance(one: float, other: float) -> float:
        if metric == "nominal":
            return float(one != other)
        if metric == "interval":
            return (one - other) ** 2
        low, high = sorted((one, other))
        between = sum(low <= value <= high for value in pool)
        return (between - (pool.count(low) + pool.count(high)) / 2) ** 2 if low != high else 0.0

    within = sum(
        sum(distance(one, other) for one in unit for other in unit) / (len(unit) - 1) for unit in units
    )
    among = sum(distance(one, other) for one in pool for other in pool)
    return 1 - (len(pool) - 1) * within / among if among else None


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([1.0, 1.5, 2.0, 3.0, 4.0]), max_size=4), max_size=8),
    st.sampled_from(["nominal", "ordinal", "interval"]),
)
def test_alpha_is_what_its_definition_says(units: list[list[float]], metric: Any) -> None:
    expected = alpha_by_pairs(units, metric)
    found = krippendorff_alpha(units, metric=metric)
    assert found == (None if expected is None else pytest.approx(expected))


@given(st.permutations("abcd"), st.permutations("abcd"))
def test_pairs_agree_alike_in_both_directions(one: list[str], other: list[str]) -> None:
    mine, theirs = signs([[name] for name in one]), signs([[name] for name in other])
    assert compare(mine, theirs) == compare(theirs, mine)
    assert compare(mine, mine).value == 1
    assert compare(mine, signs([[name] for name in one[::-1]])).value == 0
    assert compare(mine, signs([one])).value == 0.5


def rank_all(
    desk: Any, chat: Callable[..., list[Message]], owner: str, orders: dict[str, list[int]], *, gold: bool
) -> None:
    """One task on which each annotator gives an order of the three candidates by their texts."""
    chat(owner, "q", "0")
    for annotator, order in orders.items():
        row = desk.rank(annotator, [[str(number)] for number in order], overlap=len(orders))
    if gold:
        by_text = dict(zip(order, row.groups, strict=True))
        with desk.store.write() as tx:
            by = accounts.create_guest(tx).id
            labelling.adjudicate(
                tx, row.task_id, by=by, groups=[by_text[number] for number in (0, 1, 2)], gold=True
            )


def test_who_guesses_counts_for_nothing_and_who_agrees_counts_for_more(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    rng = random.Random(1)
    for number in range(40):
        guess = rng.sample(range(3), 3)
        orders = {cast.trainer: [0, 1, 2], cast.second: [0, 1, 2], cast.operator: guess}
        rank_all(desk, chat, cast.reader, orders, gold=number < 20)
    with store.read() as tx:
        found = labelling.agreement(tx)
        weights = labelling.reliability_weights(tx)
    by_id = {each.id: each for each in found.annotators}
    good, bad = by_id[cast.trainer], by_id[cast.operator]
    assert (good.rankings, good.pairs, good.gold.value) == (40, 120, 1.0)
    assert good.reliability > 0.9
    assert 0.3 < bad.reliability < 0.65
    assert weights[cast.trainer] == weights[cast.second] > 1 > 0.4 > weights[cast.operator]
    assert sum(weights.values()) / 3 == pytest.approx(1, abs=0.01)
    assert found.alpha.value is not None
    assert 0.2 < found.alpha.value < 0.6
    assert found.judged == 360
    assert found.effective < 240
    settled = {each.task_id for each in found.disagreements}
    with store.read() as tx:
        adjudicated = {row.task_id for row in tx.query(Ranking).where(Ranking.adjudication)}
    assert not settled & adjudicated


def test_open_disagreements_are_listed_the_worst_first(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    for order, gold in (([0, 1, 2], False), ([1, 0, 2], False), ([2, 1, 0], False), ([2, 1, 0], True)):
        rank_all(desk, chat, cast.reader, {cast.trainer: [0, 1, 2], cast.second: order}, gold=gold)
    with store.read() as tx:
        found = labelling.agreement(tx)
    assert [(each.annotators, each.agreement) for each in found.disagreements] == [
        (2, 0.0),
        (2, pytest.approx(2 / 3)),
    ]


def test_who_is_wrong_more_often_than_by_guessing_counts_for_nothing(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    for _ in range(4):
        rank_all(desk, chat, cast.reader, {cast.trainer: [0, 1, 2], cast.second: [2, 1, 0]}, gold=True)
    with store.read() as tx:
        assert labelling.reliability_weights(tx) == {cast.trainer: 2.0, cast.second: 0.0}


def test_tied_answers_share_the_middle_of_their_places(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    chat(cast.reader, "q", "0")
    desk.rank(cast.trainer, [["0", "1"], ["2"]], overlap=2)
    desk.rank(cast.second, [["0"], ["1"], ["2"]])
    with store.read() as tx:
        assert labelling.agreement(tx).alpha.value == krippendorff_alpha([[1.5, 1], [1.5, 2], [3, 3]])


def test_one_annotator_alone_has_no_agreement_but_counts(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]]
) -> None:
    rank_all(desk, chat, cast.reader, {cast.trainer: [0, 1, 2]}, gold=False)
    with store.read() as tx:
        found = labelling.agreement(tx)
        assert labelling.reliability_weights(tx) == {cast.trainer: 1.0}
    assert found.alpha.value is None
    assert found.pairwise.value is None
    assert found.annotators[0].reliability == pytest.approx(0.73)


def test_a_snapshot_says_how_reliable_its_annotators_are(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Callable[..., list[Message]], tmp_path: Path
) -> None:
    rank_all(desk, chat, cast.reader, {cast.trainer: [0, 1, 2]}, gold=False)
    taken = export.snapshot(store, tmp_path)
    assert export.read_reliability(taken.path) == {cast.trainer: 1.0}
