"""Message trees in the form of Open Assistant's releases, made of demonstrations, comparisons and prompts.

What is read back from the trees holds all that went in: dialogues that begin alike share a tree as long as neither
hides the other, and stand in trees of their own otherwise. Left out, and counted: what the form cannot say.
"""

from __future__ import annotations

import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from tutelage.datasets.formats import Row, ranking
from tutelage.dialogue import Comparison, Dialogue, Message

SYSTEM = "dialogues with a system message: trees have no such role"
UNRANKED = "comparisons whose judgements follow from no ranking"
EMPTY = "comparisons with an empty answer"
LONG_PROMPT = "prompts with answers in them, which would be taken for demonstrations"
_ROLES = {"user": "prompter", "assistant": "assistant"}
_NAMESPACE = uuid.UUID("5a1c4f1e-7d0e-5b0a-9a55-2f6f3c1b7e11")


@dataclass(slots=True)
class _Node:
    """A message and the replies to it. `whole` marks an answer with which a demonstration ends."""

    text: str
    rank: int | None = None
    replies: list[_Node] = field(default_factory=list)
    whole: bool = False

    def reply(self, text: str) -> _Node | None:
        return next((reply for reply in self.replies if reply.text == text), None)


class Forest:
    """Trees by the text of their root, and why something stands in none of them.

    Demonstrations are added first: the best of ranked answers would hide one that goes another way.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._trees: dict[str, list[_Node]] = defaultdict(list)

    def add_demonstration(self, dialogue: Dialogue) -> None:
        """Add a dialogue that ends with the assistant."""
        if dialogue.messages[0].role == "system":
            self.left_out[SYSTEM] += 1
            return
        for tree in self._of(dialogue.messages):
            last = _walk(tree, dialogue.messages)
            if last is not None and (last.whole or not last.replies):
                last.whole = True
                return

    def add_comparison(self, comparison: Comparison) -> None:
        """Add a prompt with ranked answers."""
        groups = ranking(comparison)
        if comparison.prompt[0].role == "system":
            self.left_out[SYSTEM] += 1
        elif not groups:
            self.left_out[UNRANKED] += 1
        elif not all(text.strip() for text in comparison.candidates):
            self.left_out[EMPTY] += 1
        else:
            ranks = {index: rank for rank, group in enumerate(groups) for index in group}
            answers = [_Node(text, ranks.get(index)) for index, text in enumerate(comparison.candidates)]
            for tree in self._of(comparison.prompt):
                asked = _walk(tree, comparison.prompt)
                if asked is not None and not asked.replies:
                    asked.replies = answers
                    return

    def add_prompt(self, dialogue: Dialogue) -> None:
        """Add a dialogue that ends with the user, unless a tree asks the same already."""
        messages = dialogue.messages
        if messages[0].role == "system":
            self.left_out[SYSTEM] += 1
        elif any(_find(tree, messages) for tree in self._trees[messages[0].content]):
            return
        elif len(messages) > 1:
            self.left_out[LONG_PROMPT] += 1
        else:
            self._trees[messages[0].content].append(_Node(messages[0].content))

    def rows(self) -> Iterator[Row]:
        """A row a tree. The same trees have the same ids."""
        for text, trees in self._trees.items():
            for number, tree in enumerate(trees):
                name = uuid.uuid5(_NAMESPACE, f"{number}\n{text}")
                yield {
                    "message_tree_id": str(name),
                    "tree_state": "ready_for_export",
                    "prompt": _row(tree, "user", name),
                }

    def _of(self, messages: Sequence[Message]) -> Iterator[_Node]:
        """The trees with this root, and at last a new one, which is kept once it is asked for."""
        text = messages[0].content
        yield from list(self._trees[text])
        tree = _Node(text)
        self._trees[text].append(tree)
        yield tree


def trees(
    demonstrations: Iterable[Dialogue], comparisons: Iterable[Comparison], prompts: Iterable[Dialogue]
) -> Forest:
    """All of them as trees."""
    forest = Forest()
    for dialogue in demonstrations:
        forest.add_demonstration(dialogue)
    for comparison in comparisons:
        forest.add_comparison(comparison)
    for dialogue in prompts:
        forest.add_prompt(dialogue)
    return forest


def _find(tree: _Node, messages: Sequence[Message]) -> _Node | None:
    """The node at the end of a path, or None where the tree does not hold it."""
    node: _Node | None = tree
    for message in messages[1:]:
        node = node.reply(message.content) if node else None
    return node


def _walk(tree: _Node, messages: Sequence[Message]) -> _Node | None:
    """The node at the end of a path, which is added where it is missing; None, and nothing changes, where the
    path would hide what the tree says: an answer beside another one, or anything beyond the end of a demonstration.
    """
    node, missing = tree, 1
    for missing, message in enumerate(messages[1:], start=1):  # noqa: B007
        found = node.reply(message.content)
        if found is None:
            break
        node = found
    else:
        return node
    if node.whole or (messages[missing].role == "assistant" and node.replies):
        return None
    for message in messages[missing:]:
        node.replies.append(_Node(message.content))
        node = node.replies[-1]
    return node


def _row(node: _Node, role: str, name: uuid.UUID) -> Row:
    row: Row = {"message_id": str(name), "text": node.text, "role": _ROLES[role]}
    if node.rank is not None:
        row["rank"] = node.rank
    below = "assistant" if role == "user" else "user"
    replies = enumerate(node.replies)
    return row | {"replies": [_row(reply, below, uuid.uuid5(name, str(number))) for number, reply in replies]}
