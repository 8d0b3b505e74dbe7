"""A choice between two answers is kept, replaced, withdrawn, and becomes a comparison by consent."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from tutelage.dialogue import Preference
from tutelage.errors import InvalidRequest, NotFound
from tutelage.store import Store, accounts, dialogues, picks
from tutelage.store.export import comparisons
from tutelage.store.privacy import withdrawn

Chat = Callable[..., list]


@pytest.fixture
def two(store: Store, cast: SimpleNamespace, chat: Chat) -> tuple[str, str]:
    """Two answers to one question."""
    question, first = chat(cast.reader, "q", "one")
    with store.write() as tx:
        second = dialogues.add_message(
            tx,
            question.dialogue_id,
            parent_id=question.id,
            role="assistant",
            content="two",
            author_kind="model",
        )
    return first.id, second.id


def choose(store: Store, rater_id: str, two: tuple[str, str], verdict: str) -> None:
    with store.write() as tx:
        picks.pick(tx, first_id=two[0], second_id=two[1], rater_id=rater_id, verdict=verdict)


@pytest.mark.parametrize(
    ("verdict", "preference"),
    [
        ("first", Preference(0, 1)),
        ("second", Preference(1, 0)),
        ("tie", Preference(0, 1, tie=True, gap=0)),
        ("both_bad", Preference(0, 1, tie=True, gap=0)),
    ],
)
def test_a_pick_is_a_comparison(
    store: Store, cast: SimpleNamespace, two: tuple[str, str], verdict: str, preference: Preference
) -> None:
    choose(store, cast.reader, two, "first")
    choose(store, cast.reader, two, verdict)
    with store.read() as tx:
        [row] = comparisons(tx, sources=["pick"])
        assert (row.candidates, row.preferences, row.author) == (("one", "two"), (preference,), cast.reader)
        assert [message.content for message in row.prompt] == ["q"]
        assert picks.picks_for(tx, two, cast.reader)[two[1]].verdict == verdict


def test_without_consent_or_withdrawn_nothing_is_learned(
    store: Store, cast: SimpleNamespace, two: tuple[str, str]
) -> None:
    choose(store, cast.reader, two, "second")
    with store.write() as tx:
        accounts.set_consent(tx, cast.reader, False)
        row = picks.picks_for(tx, two, cast.reader)[two[1]]
        assert list(comparisons(tx, sources=["pick"])) == []
        assert row.id in withdrawn(tx)
        accounts.set_consent(tx, cast.reader, True)
        assert len(list(comparisons(tx, sources=["pick"]))) == 1
        assert picks.withdraw_pick(tx, first_id=two[0], second_id=two[1], rater_id=cast.reader)
        assert not picks.withdraw_pick(tx, first_id=two[0], second_id=two[1], rater_id=cast.reader)
        assert row.id in withdrawn(tx)
        assert list(comparisons(tx, sources=["pick"])) == []


def test_only_two_answers_of_ones_own_to_one_question(
    store: Store, cast: SimpleNamespace, chat: Chat, two: tuple[str, str]
) -> None:
    other = chat(cast.reader, "q", "elsewhere")
    with pytest.raises(NotFound):
        choose(store, cast.operator, two, "first")
    for pair in ((two[0], two[0]), (two[0], other[1].id), (other[0].id, other[1].id)):
        with pytest.raises(InvalidRequest):
            choose(store, cast.reader, pair, "first")
    with pytest.raises(InvalidRequest):
        choose(store, cast.reader, two, "better")
