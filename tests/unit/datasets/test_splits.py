"""Held-out roots and groups: one root, one side, whatever file it came from."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tutelage.datasets.splits import in_half, in_two, is_held_out, split
from tutelage.dialogue import Comparison, Dialogue, Message, root_of, split_key


def said(*texts: str, system: str = "", group: str = "") -> Dialogue:
    roles = ("user", "assistant")
    turns = tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))
    return Dialogue((Message("system", system), *turns) if system else turns, group=group)


@given(st.text(min_size=1), st.text(), st.floats(0, 1))
def test_only_the_first_user_message_decides(root: str, rest: str, share: float) -> None:
    assert is_held_out(said(root), share) == is_held_out(said(root, "a", rest), share)
    assert is_held_out(said(root), share) == is_held_out(said(root, system=rest), share)


def test_spacing_and_case_do_not_move_a_root() -> None:
    assert is_held_out(said("How  are\nYOU"), 0.5) == is_held_out(said("how are you"), 0.5)


@given(st.text(min_size=1), st.floats(0, 1), st.floats(0, 1))
def test_a_smaller_share_holds_out_a_subset(root: str, one: float, other: float) -> None:
    small, large = sorted((one, other))
    assert is_held_out(said(root), large) or not is_held_out(said(root), small)


def test_the_share_is_about_right() -> None:
    rows = [said(f"question {number}") for number in range(2000)]
    train, held_out = split(rows, 0.1)
    assert len(train) + len(held_out) == 2000
    assert 150 < len(held_out) < 250
    assert split(rows, 0.0)[1] == []


def test_the_halves_share_no_root_and_each_has_a_held_out_part() -> None:
    rows = [said(f"question {number}") for number in range(400)]
    halves = [[row for row in rows if in_half(row, half)] for half in ("first", "second")]
    assert sorted(map(str, halves[0] + halves[1])) == sorted(map(str, rows))
    assert 150 < len(halves[0]) < 250
    assert all(in_half(row, "all") for row in rows)
    for half in halves:
        assert 0.1 < sum(is_held_out(row, 0.2) for row in half) / len(half) < 0.3


def test_sides_stay_what_they_are_from_one_version_of_the_program_to_the_next() -> None:
    """What a model was trained on yesterday may not be what judges it tomorrow."""
    rows = {number: said(f"question {number}") for number in range(12)}
    assert [number for number, row in rows.items() if in_half(row, "first")] == [0, 1, 6, 7, 10, 11]
    assert [number for number, row in rows.items() if is_held_out(row, 0.2)] == [1, 11]


def test_a_half_is_chosen_by_the_root_however_it_is_written() -> None:
    plain, shouted = (said(text) for text in ("What is  it?", "what IS it?"))
    assert in_half(plain, "first") == in_half(shouted, "first")


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1), st.floats(0, 1))
def test_a_group_falls_where_the_root_does_that_it_is_named_after(
    oldest: str, root: str, other: str, share: float
) -> None:
    group = split_key(root_of(said(oldest)))
    row, judged = said(root, group=group), Comparison(said(other).messages, (), (), group=group)
    assert is_held_out(said(oldest), share) == is_held_out(row, share) == is_held_out(judged, share)
    assert in_half(said(oldest), "first") == in_half(row, "first") == in_half(judged, "first")


@given(st.lists(st.sampled_from("abcdefgh"), min_size=1), st.sampled_from("abcdefgh"))
def test_two_parts_share_no_root_and_hardly_change_when_a_row_comes(roots: list[str], new: str) -> None:
    rows = [said(root, "a", str(number)) for number, root in enumerate(roots)]
    first, second = in_two(rows)
    assert sorted(map(str, first + second)) == sorted(map(str, rows))
    sides = [{root_of(row) for row in part} for part in (first, second)]
    assert not sides[0] & sides[1]
    assert 0 <= len(sides[1]) - len(sides[0]) <= 1
    later = [{root_of(row) for row in part} for part in in_two([said(new), *rows])]
    assert len((sides[0] & later[1]) | (sides[1] & later[0])) <= 1


def test_nothing_is_in_two_parts_of_nothing() -> None:
    assert in_two([]) == ([], [])
