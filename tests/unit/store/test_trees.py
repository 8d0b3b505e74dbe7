"""Branches of a tree, and which of them a model may learn from."""

from __future__ import annotations

import pytest

from tutelage.store.tables import Message
from tutelage.store.trees import children_of, ids_below, trainable, upwards


def row(
    name: str, parent: str | None, role: str, *, content: str = "word", status: str = "complete"
) -> Message:
    return Message(id=name, parent_id=parent, role=role, content=content, status=status)


ROWS = [
    row("q", None, "user"),
    row("a", "q", "assistant"),
    row("b", "q", "assistant"),
    row("r", "a", "user"),
    row("c", "r", "assistant"),
]


def test_what_hangs_below_and_what_leads_there() -> None:
    children = children_of(ROWS)
    assert ids_below(children, "q") == ["q", "a", "b", "r", "c"]
    assert ids_below(children, "a") == ["a", "r", "c"]
    assert [each.id for each in upwards({each.id: each for each in ROWS}, "c")] == ["q", "a", "r", "c"]


@pytest.mark.parametrize("status", ["blocked", "interrupted", "running"])
def test_nothing_is_learnt_from_what_was_blocked_or_broken_off(status: str) -> None:
    question, answer = ROWS[:2]
    assert trainable([question, answer])
    assert not trainable([question, row("a", "q", "assistant", status=status)])
    assert not trainable([row("q", None, "user", status=status), answer])


def test_nothing_is_learnt_from_an_empty_answer_or_turns_out_of_order() -> None:
    question, answer = ROWS[:2]
    assert not trainable([question, row("a", "q", "assistant", content=" \n")])
    assert not trainable([question, row("r", "q", "user"), answer])
    assert not trainable([answer])
