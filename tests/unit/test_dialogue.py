"""Rankings become pairs; the order of turns is explained in words."""

from __future__ import annotations

from collections import Counter
from dataclasses import FrozenInstanceError
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.dialogue import ROLES, Comparison, Message, Preference, check_turns

PROMPT = (Message("user", "Name a fruit."),)


def turns(letters: str) -> list[Message]:
    """Messages from the first letters of their roles."""
    return [Message(role, "…") for letter in letters for role in ROLES if role[0] == letter]


@st.composite
def rankings(draw: st.DrawFn) -> tuple[int, list[list[int]]]:
    """How many candidates there are, and groups of some of them, best first."""
    size = draw(st.integers(min_value=2, max_value=9))
    rank_of = draw(st.dictionaries(st.integers(0, size - 1), st.integers(0, size - 1), max_size=size))
    groups = [[i for i in rank_of if rank_of[i] == rank] for rank in sorted(set(rank_of.values()))]
    return size, groups


def ranked(size: int, groups: list[list[int]]) -> Comparison:
    return Comparison.from_ranking(PROMPT, [f"answer {i}" for i in range(size)], groups)


def test_a_strict_ranking_gives_every_pair_with_its_gap() -> None:
    assert ranked(3, [[2], [0], [1]]).preferences == (
        Preference(better=2, worse=0, gap=1),
        Preference(better=2, worse=1, gap=2),
        Preference(better=0, worse=1, gap=1),
    )


def test_a_group_is_a_tie_and_one_rank() -> None:
    assert ranked(4, [[3], [1, 0], [2]]).preferences == (
        Preference(3, 0, gap=1),
        Preference(3, 1, gap=1),
        Preference(3, 2, gap=2),
        Preference(0, 1, tie=True, gap=0),
        Preference(0, 2, gap=1),
        Preference(1, 2, gap=1),
    )


def test_a_candidate_in_no_group_takes_part_in_no_pair() -> None:
    assert ranked(3, [[0], [2]]).preferences == (Preference(0, 2),)


@pytest.mark.parametrize("groups", [[[0], [0]], [[0, 0]], [[2]], [[-1]]])
def test_an_unknown_or_repeated_candidate_is_refused(groups: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="2 candidates at most once"):
        ranked(2, groups)


@given(rankings())
def test_each_pair_of_ranked_candidates_is_judged_once_and_as_ranked(
    case: tuple[int, list[list[int]]],
) -> None:
    size, groups = case
    comparison = ranked(size, groups)
    rank_of = {index: rank for rank, group in enumerate(groups) for index in group}
    judged = Counter(frozenset((each.better, each.worse)) for each in comparison.preferences)
    assert judged == Counter({frozenset(pair) for pair in permutations(rank_of, 2)})
    for each in comparison.preferences:
        assert each.gap == rank_of[each.worse] - rank_of[each.better] >= 0
        assert each.tie == (each.gap == 0)


@given(rankings())
def test_the_order_inside_a_tie_means_nothing(case: tuple[int, list[list[int]]]) -> None:
    size, groups = case
    assert ranked(size, groups) == ranked(size, [group[::-1] for group in groups])


def test_values_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        PROMPT[0].content = "Name a stone."  # type: ignore[misc]


@pytest.mark.parametrize("letters", ["u", "ua", "uau", "su", "sua", "suaua"])
def test_turns_in_order(letters: str) -> None:
    assert check_turns(turns(letters)) is None


@pytest.mark.parametrize(
    ("letters", "problem"),
    [
        ("", "there is no user message"),
        ("s", "there is no user message"),
        ("a", "turn 1 should be the user's, not the assistant's"),
        ("sa", "turn 1 should be the user's, not the assistant's"),
        ("uu", "turn 2 should be the assistant's, not the user's"),
        ("us", "turn 2 should be the assistant's, not the system's"),
        ("uaa", "turn 3 should be the user's, not the assistant's"),
        ("ss", "turn 1 should be the user's, not the system's"),
    ],
)
def test_turns_out_of_order_are_explained(letters: str, problem: str) -> None:
    assert check_turns(turns(letters)) == problem


def test_the_last_turn_can_be_asked_for() -> None:
    assert check_turns(turns("ua"), last="assistant") is None
    assert check_turns(turns("su"), last="user") is None
    assert (
        check_turns(turns("uau"), last="assistant")
        == "the last message should be the assistant's, not the user's"
    )
