"""Branches of message trees: walking them, and which of them a model may learn from."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from tutelage.dialogue import Message as Turn
from tutelage.dialogue import check_turns
from tutelage.store.tables import Message


def children_of(rows: Iterable[Message]) -> dict[str | None, list[Message]]:
    """Messages by their parent's id, in the order they come."""
    children: dict[str | None, list[Message]] = defaultdict(list)
    for row in rows:
        children[row.parent_id].append(row)
    return children


def ids_below(children: dict[str | None, list[Message]], message_id: str) -> list[str]:
    """A message's id and those of all messages below it."""
    found = [message_id]
    for parent in found:  # grows while it is walked: breadth first
        found.extend(child.id for child in children.get(parent, ()))
    return found


def upwards(by_id: dict[str, Message], message_id: str) -> list[Message]:
    """The branch that ends in a message, root first."""
    rows = [by_id[message_id]]
    while (parent_id := rows[-1].parent_id) is not None:
        rows.append(by_id[parent_id])
    return rows[::-1]


def turns(rows: Iterable[Message]) -> tuple[Turn, ...]:
    """Rows as plain messages."""
    return tuple(Turn(row.role, row.content) for row in rows)


def trainable(rows: Sequence[Message]) -> bool:
    """Whether a branch is whole: nothing in it was blocked, broken off or empty, and the turns alternate."""
    whole = all(row.status == "complete" and row.content.strip() for row in rows)
    return whole and check_turns(turns(rows)) is None
