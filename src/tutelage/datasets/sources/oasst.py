"""Message trees in the form of Open Assistant's two releases, one tree a row.

Out of one tree come

- demonstrations: the paths that follow, from each user message, the reply that people held to be the best
  (the lowest rank; the only reply where nothing was ranked), down to the last such reply. Users who went on
  differently give one path each; a path that is only the beginning of another is not given twice;
- comparisons: for each user message with two or more ranked replies, the path to it and those replies;
- prompts: the paths to the user messages that are answered in no demonstration and in no comparison.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from tutelage.datasets.sources import fields
from tutelage.datasets.sources.found import Item, Row, Skipped
from tutelage.dialogue import Comparison, Dialogue, Message, Role
from tutelage.errors import DataError

ROLES: dict[str, Role] = {"prompter": "user", "assistant": "assistant"}
UNRANKED = "several replies and no ranking (their user message is kept as a prompt)"


@dataclass(slots=True, eq=False)
class Node:
    """A message that was kept, its rank among its siblings if it has one, and the kept replies to it."""

    message: Message
    rank: int | None
    parent: Node | None
    replies: list[Node] = field(default_factory=list)

    def path(self) -> tuple[Message, ...]:
        """The messages from the root to this one."""
        messages = []
        node: Node | None = self
        while node is not None:
            messages.append(node.message)
            node = node.parent
        return tuple(reversed(messages))

    def ranked(self) -> list[Node]:
        """The ranked replies, best first."""
        return sorted(
            (reply for reply in self.replies if reply.rank is not None), key=lambda reply: reply.rank or 0
        )

    def best(self) -> Node | None:
        """The reply that people held to be the best, or the only one."""
        ranked = self.ranked()
        if ranked:
            return ranked[0]
        return self.replies[0] if len(self.replies) == 1 else None


def parse(row: Row, *, languages: Sequence[str] = (), synthetic: bool = False) -> Iterator[Item | Skipped]:
    """Demonstrations, comparisons and prompts of one tree; see the module.

    Left out, with everything said below them: deleted messages, those that failed review, those in none of
    `languages` (all are kept when it is empty), and, unless `synthetic`, those written by a model.
    """
    root, left_out = _prune(row.get("prompt"), languages, synthetic)
    yield from (Skipped(reason, count) for reason, count in left_out.items())
    if root is None:
        return
    best = list(_best_replies(root))
    for reply in best:
        if not any(answer.best() for answer in reply.replies):
            yield Dialogue(reply.path())
    yield from _judged_and_open(root, {reply.parent for reply in best})


def _judged_and_open(root: Node, answered: set[Node | None]) -> Iterator[Item | Skipped]:
    """The comparisons of a tree, and its user messages that are neither answered nor compared."""
    for node in _walk(root):
        if node.message.role != "user":
            continue
        ranked = node.ranked()
        if len(ranked) > 1:
            yield _comparison(node.path(), ranked)
        elif node not in answered:
            yield Dialogue(node.path())
        if len(node.replies) > 1 and not ranked:
            yield Skipped(UNRANKED, len(node.replies))


def _comparison(prompt: tuple[Message, ...], ranked: list[Node]) -> Comparison:
    groups: dict[int | None, list[int]] = {}
    for index, reply in enumerate(ranked):
        groups.setdefault(reply.rank, []).append(index)
    return Comparison.from_ranking(prompt, [reply.message.content for reply in ranked], list(groups.values()))


def _best_replies(root: Node) -> Iterator[Node]:
    """The best reply to the root, those to the user messages that follow it, and so on."""
    waiting = [root]
    while waiting:
        reply = waiting.pop().best()
        if reply is not None:
            yield reply
            waiting.extend(reversed(reply.replies))


def _walk(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting.extend(reversed(node.replies))


def _prune(raw_root: object, languages: Sequence[str], synthetic: bool) -> tuple[Node | None, Counter[str]]:
    """The tree without what is to be left out, and how many messages that was, by reason."""
    root: Node | None = None
    left_out: Counter[str] = Counter()
    waiting: list[tuple[object, Node | None]] = [(raw_root, None)]
    while waiting:
        raw, parent = waiting.pop()
        message = _object(raw)
        if reason := _why_not(message, languages, synthetic):
            left_out[reason] += _size(message)
            continue
        node = _node(message, parent)
        if parent is None:
            root = node
        else:
            parent.replies.append(node)
        waiting.extend((reply, node) for reply in reversed(_replies(message)))
    return root, left_out


def _why_not(message: Row, languages: Sequence[str], synthetic: bool) -> str | None:
    if message.get("deleted"):
        return "deleted messages and the replies below them"
    if message.get("review_result") is False:
        return "messages that failed review and the replies below them"
    if message.get("synthetic") and not synthetic:
        return "messages written by a model and the replies below them"
    if languages and not _speaks(fields.text(message.get("lang"), "lang"), languages):
        return "messages in another language and the replies below them"
    return None


def _speaks(language: str, languages: Sequence[str]) -> bool:
    """Whether a language tag is one of these, or a regional form of one (`pt-BR` is `pt`)."""
    tag = language.lower()
    return any(tag == wanted.lower() or tag.startswith(f"{wanted.lower()}-") for wanted in languages)


def _node(message: Row, parent: Node | None) -> Node:
    role = message.get("role")
    expected = "assistant" if parent is not None and parent.message.role == "user" else "prompter"
    if role != expected:
        raise DataError(f"a message where the role {expected!r} was expected has the role {str(role)[:40]!r}")
    content = fields.text(message.get("text"), "a message's text")
    if not content.strip():
        raise DataError("a message is empty")
    rank = message.get("rank")
    if rank is not None and type(rank) is not int:
        raise DataError(f"rank should be a whole number, not {fields.kind(rank)}")
    return Node(Message(ROLES[expected], content), rank, parent)


def _size(message: Row) -> int:
    """How many messages there are from this one down."""
    count, waiting = 0, [message]
    while waiting:
        count += 1
        waiting.extend(_object(reply) for reply in _replies(waiting.pop()))
    return count


def _replies(message: Row) -> list[object]:
    return fields.items(message.get("replies") or [], "replies")


def _object(value: object) -> Row:
    if not isinstance(value, dict):
        raise DataError(
            f"a message should be an object, not {fields.kind(value)}; is this a file of message trees?"
        )
    return value
