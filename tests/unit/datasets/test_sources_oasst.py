"""Message trees: which paths teach, what is compared, what is left out."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from tutelage.datasets.sources import oasst
from tutelage.dialogue import Comparison, Dialogue, Message, check_turns


def user(text: str, *replies: Any, **fields: Any) -> dict[str, Any]:
    return {"text": text, "role": "prompter", "lang": "en", "replies": list(replies), **fields}


def reply(text: str, *replies: Any, **fields: Any) -> dict[str, Any]:
    return user(text, *replies, **fields) | {"role": "assistant"}


def tree(root: dict[str, Any]) -> dict[str, Any]:
    return {"message_tree_id": "t", "tree_state": "ready_for_export", "prompt": root}


def turns(texts: str) -> tuple[Message, ...]:
    return tuple(
        Message("assistant" if index % 2 else "user", text) for index, text in enumerate(texts.split())
    )


def said(items: list[Any], kind: str) -> set[str]:
    """The dialogues of a kind as their texts, joined."""
    last = {"demonstrations": "assistant", "prompts": "user"}[kind]
    dialogues = [item for item in items if isinstance(item, Dialogue) and item.messages[-1].role == last]
    return {" ".join(message.content for message in dialogue.messages) for dialogue in dialogues}


def test_demonstrations_follow_the_best_replies_down_each_branch(read_rows: Any) -> None:
    root = user(
        "q1",
        reply("worse", user("q9", reply("a9")), rank=1),
        reply(
            "best",
            user("q2", reply("a2")),
            user("q3", reply("a3", rank=2), reply("a4", user("q5"), rank=1)),
            user("q4"),
            rank=0,
        ),
    )
    items = read_rows(oasst.parse, tree(root)).items
    assert said(items, "demonstrations") == {"q1 best q2 a2", "q1 best q3 a4"}
    assert said(items, "prompts") == {"q1 best q4", "q1 best q3 a4 q5", "q1 worse q9"}


def test_ranked_replies_are_a_comparison_best_first(read_rows: Any) -> None:
    root = user("q", reply("c", rank=2), reply("a", rank=0), reply("unranked"), reply("b", rank=1))
    items = read_rows(oasst.parse, tree(root)).items
    ranking = Comparison.from_ranking(turns("q"), ["a", "b", "c"], [[0], [1], [2]], source="here")
    assert [item for item in items if isinstance(item, Comparison)] == [ranking]


def test_equal_ranks_are_a_tie(read_rows: Any) -> None:
    root = user("q", reply("a", rank=0), reply("b", rank=1), reply("c", rank=1))
    (comparison,) = [
        item for item in read_rows(oasst.parse, tree(root)).items if isinstance(item, Comparison)
    ]
    assert comparison == Comparison.from_ranking(turns("q"), ["a", "b", "c"], [[0], [1, 2]], source="here")


def test_comparisons_come_from_everywhere_in_the_tree(read_rows: Any) -> None:
    fork = user("q2", reply("a", rank=0), reply("b", rank=1))
    items = read_rows(
        oasst.parse, tree(user("q1", reply("best", rank=0), reply("worse", fork, rank=1)))
    ).items
    prompts = [item.prompt for item in items if isinstance(item, Comparison)]
    assert prompts == [turns("q1"), turns("q1 worse q2")]


def test_several_replies_without_a_ranking_teach_nothing(read_rows: Any) -> None:
    found = read_rows(oasst.parse, tree(user("q", reply("a"), reply("b"))))
    assert (said(found.items, "demonstrations"), said(found.items, "prompts")) == (set(), {"q"})
    assert found.skipped == {oasst.UNRANKED: 2}


@pytest.mark.parametrize(
    "mark",
    [{"deleted": True}, {"review_result": False}, {"synthetic": True}],
    ids=lambda mark: next(iter(mark)),
)
def test_what_is_left_out_takes_everything_below_along(read_rows: Any, mark: dict[str, Any]) -> None:
    below = user("q2", reply("a2"))
    root = user("q", reply("gone", below, rank=0, **mark), reply("kept", rank=1))
    found = read_rows(oasst.parse, tree(root))
    assert found.items == [Dialogue(turns("q kept"), source="here")]
    assert list(found.skipped.values()) == [3]
    whole = read_rows(oasst.parse, tree(user("q", reply("a", below), **mark)))
    assert (whole.items, list(whole.skipped.values())) == ([], [4])


def test_marks_that_say_nothing_bad_leave_nothing_out(read_rows: Any) -> None:
    marks = {"deleted": False, "review_result": None, "synthetic": False, "rank": None}
    found = read_rows(oasst.parse, tree(user("q", reply("a", **marks), **marks)))
    assert (said(found.items, "demonstrations"), found.skipped) == ({"q a"}, {})


def test_messages_by_models_are_kept_on_demand(read_rows: Any) -> None:
    parse = partial(oasst.parse, synthetic=True)
    root = user("q", reply("a", synthetic=True), synthetic=True)
    assert said(read_rows(parse, tree(root)).items, "demonstrations") == {"q a"}


def test_languages_are_chosen_by_tag_and_regional_form(read_rows: Any) -> None:
    rows = [tree(user(f"q-{lang}", reply("a", lang=lang), lang=lang)) for lang in ("en", "pt-BR", "ptx")]
    found = read_rows(partial(oasst.parse, languages=["PT"]), *rows)
    assert said(found.items, "demonstrations") == {"q-pt-BR a"}
    assert sum(found.skipped.values()) == 2


def test_the_deepest_tree_that_json_can_hold_is_read() -> None:
    node = reply("end")
    for depth in range(5_001):
        node = reply(f"a{depth}", node) if node["role"] == "prompter" else user(f"q{depth}", node)
    (dialogue,) = oasst.parse(tree(user("root", reply("a", node))))
    assert isinstance(dialogue, Dialogue)
    assert len(dialogue.messages) == 5_004
    assert check_turns(dialogue.messages) is None
    assert list(oasst.parse(tree(user("root", reply("a", node), deleted=True))))


@pytest.mark.parametrize(
    ("root", "reason"),
    [
        (None, "a message should be an object, not nothing; is this a file of message trees?"),
        (
            reply("a"),
            "a message where the role 'prompter' was expected has the role 'assistant'",
        ),
        (user("q", user("q")), "a message where the role 'assistant' was expected has the role 'prompter'"),
        (user(" "), "a message is empty"),
        (user("q", replies="none"), "replies should be a list, not text"),
        (user("q", reply("a", rank=0.5)), "rank should be a whole number, not a number"),
        (user("q", reply("a", rank=True)), "rank should be a whole number, not true or false"),
        ({"role": "prompter"}, "a message's text should be text, not nothing"),
    ],
)
def test_what_is_no_tree_is_a_problem_in_words(read_rows: Any, root: Any, reason: str) -> None:
    found = read_rows(oasst.parse, tree(root))
    assert (found.items, found.problems) == ([], [reason])
