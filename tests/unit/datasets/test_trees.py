"""Trees written and read back by our own importer hold what went in."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from tutelage.datasets import trees as module
from tutelage.datasets.sources import Skipped, oasst
from tutelage.datasets.trees import trees
from tutelage.dialogue import Comparison, Dialogue, Message, Preference, Role

Found = tuple[set[tuple[Message, ...]], set[Comparison], set[tuple[Message, ...]]]


def turns(*texts: str) -> tuple[Message, ...]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))


def read_back(forest: module.Forest) -> Found:
    """Demonstrations, comparisons and prompts of all rows."""
    items = [item for row in forest.rows() for item in oasst.parse(row) if not isinstance(item, Skipped)]
    dialogues = [item.messages for item in items if isinstance(item, Dialogue)]
    return (
        {messages for messages in dialogues if messages[-1].role == "assistant"},
        {item for item in items if isinstance(item, Comparison)},
        {messages for messages in dialogues if messages[-1].role == "user"},
    )


def test_dialogues_that_begin_alike_share_a_tree() -> None:
    one, other = turns("a", "b", "c", "d"), turns("a", "b", "e", "f")
    forest = trees([Dialogue(one), Dialogue(other)], [], [])
    (row,) = forest.rows()
    assert row["prompt"]["role"] == "prompter"
    assert [reply["text"] for reply in row["prompt"]["replies"][0]["replies"]] == ["c", "e"]
    assert read_back(forest)[0] == {one, other}


def test_two_answers_to_one_message_stand_apart_so_that_neither_is_lost() -> None:
    forest = trees([Dialogue(turns("a", "b")), Dialogue(turns("a", "c"))], [], [])
    assert len(list(forest.rows())) == 2
    assert read_back(forest)[0] == {turns("a", "b"), turns("a", "c")}


def test_a_dialogue_and_its_beginning_are_both_kept() -> None:
    both = [turns("a", "b"), turns("a", "b", "c", "d")]
    for order in (both, both[::-1]):
        assert read_back(trees([Dialogue(messages) for messages in order], [], []))[0] == set(both)


def test_ranks_and_ties() -> None:
    ranked = Comparison.from_ranking(turns("a"), ["x", "y", "z", "not ranked"], [[1], [0, 2]])
    forest = trees([], [ranked], [])
    (row,) = forest.rows()
    assert [(reply["text"], reply.get("rank")) for reply in row["prompt"]["replies"]] == [
        ("x", 1),
        ("y", 0),
        ("z", 1),
        ("not ranked", None),
    ]
    (found,) = read_back(forest)[1]
    assert found == Comparison.from_ranking(turns("a"), ["y", "x", "z"], [[0], [1, 2]])


def test_what_trees_cannot_say_is_left_out_and_counted() -> None:
    system = (Message("system", "Rhyme."), *turns("a", "b"))
    circle = (Preference(0, 1), Preference(1, 2), Preference(2, 0))
    forest = trees(
        [Dialogue(system)],
        [
            Comparison(turns("a"), ("x", "y", "z"), circle),
            Comparison.from_ranking(turns("a"), ["x", " "], [[0], [1]]),
            Comparison.from_ranking(system[:2], ["x", "y"], [[0], [1]]),
        ],
        [Dialogue(turns("a", "b", "c")), Dialogue(system[:2]), Dialogue(turns("q"))],
    )
    assert forest.left_out == {module.SYSTEM: 3, module.UNRANKED: 1, module.EMPTY: 1, module.LONG_PROMPT: 1}
    assert read_back(forest) == (set(), set(), {turns("q")})


def test_a_question_that_is_answered_is_not_asked_again() -> None:
    forest = trees([Dialogue(turns("a", "b", "c", "d"))], [], [Dialogue(turns("a", "b", "c"))])
    assert len(list(forest.rows())) == 1
    assert not forest.left_out


def test_the_same_trees_have_the_same_ids_and_every_message_its_own() -> None:
    def ids(node: dict[str, object]) -> list[object]:
        replies = node["replies"]
        assert isinstance(replies, list)
        return [node["message_id"], *(each for reply in replies for each in ids(reply))]

    forest = trees([Dialogue(turns("a", "b", "c", "d")), Dialogue(turns("a", "x"))], [], [])
    found = [each for row in forest.rows() for each in ids(row["prompt"])]
    assert found == [each for row in forest.rows() for each in ids(row["prompt"])]
    assert len(set(found)) == len(found) == 6


words = st.sampled_from("abc")
demonstrations = st.lists(st.lists(words, min_size=2, max_size=6).filter(lambda texts: len(texts) % 2 == 0))
asked = st.lists(words, min_size=1, max_size=5).filter(lambda texts: len(texts) % 2 == 1)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    ranks = draw(st.lists(st.integers(0, 2), min_size=2, max_size=4))
    texts = [f"answer {index}" for index in range(len(ranks))]
    groups = [[index for index, rank in enumerate(ranks) if rank == wanted] for wanted in sorted(set(ranks))]
    return Comparison.from_ranking(turns(*draw(asked)), texts, groups)


def judgements(comparison: Comparison) -> tuple[object, ...]:
    """What was judged, whatever the order of the candidates."""
    pairs = [
        (*sorted((a, b)), 0) if preference.tie else (a, b, preference.gap)
        for preference in comparison.preferences
        for a, b in [(comparison.candidates[preference.better], comparison.candidates[preference.worse])]
    ]
    return comparison.prompt, tuple(sorted(pairs))


@given(demonstrations, st.lists(comparisons(), max_size=4), st.lists(asked, max_size=3))
def test_nothing_that_went_in_is_lost(
    dialogues: Sequence[list[str]], ranked: list[Comparison], prompts: list[list[str]]
) -> None:
    said = [turns(*texts) for texts in dialogues]
    forest = trees(
        [Dialogue(messages) for messages in said], ranked, [Dialogue(turns(*texts)) for texts in prompts]
    )
    found, compared, open_prompts = read_back(forest)
    assert found >= set(said)
    assert {judgements(each) for each in compared} == {judgements(each) for each in ranked}
    known = open_prompts | {messages[:1] for messages in found} | {each.prompt[:1] for each in compared}
    assert {turns(*texts) for texts in prompts if len(texts) == 1} <= known
