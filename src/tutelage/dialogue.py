"""What people and models say to each other, as plain frozen values. No I/O."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, get_args

from tutelage.errors import Sentence

Role = Literal["system", "user", "assistant"]
ROLES: tuple[Role, ...] = get_args(Role)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `content` is plain text (Markdown)."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Dialogue:
    """A linear conversation: one path through a message tree.

    `source` names where it came from (an importer or `chat`), `author` the person who wrote it, `group` what it stands
    together with when data is split: the `split_key` of the oldest root there (empty: of its own).
    """

    messages: tuple[Message, ...]
    id: str = ""
    source: str = ""
    author: str | None = None
    group: str = ""


@dataclass(frozen=True, slots=True)
class Preference:
    """One judged pair of candidates, by index. In a tie, the order of the two means nothing.

    `gap` is how many ranks lie between the two (1 when only the pair was judged, 0 in a tie).
    """

    better: int
    worse: int
    tie: bool = False
    gap: int = 1


@dataclass(frozen=True, slots=True)
class Comparison:
    """K completions of one prompt, and how a person judged them pair by pair.

    `prompt` ends in a user message; `candidates` are assistant texts. `weight` is how much it should count, by how
    reliable its author is; 1 on average. `group` as in a dialogue.
    """

    prompt: tuple[Message, ...]
    candidates: tuple[str, ...]
    preferences: tuple[Preference, ...]
    id: str = ""
    source: str = ""
    author: str | None = None
    weight: float = 1.0
    group: str = ""

    @classmethod
    def from_ranking(
        cls,
        prompt: Iterable[Message],
        candidates: Sequence[str],
        groups: Sequence[Sequence[int]],
        *,
        id: str = "",
        source: str = "",
        author: str | None = None,
    ) -> Comparison:
        """All pairs of a ranking. `groups` are candidate indices, best first; one group holds a tie.

        A candidate in no group was not rankable and takes part in no pair.
        Raises ValueError when an index is unknown or stands twice.
        """
        flat = [index for group in groups for index in group]
        if len(set(flat)) != len(flat) or any(not 0 <= index < len(candidates) for index in flat):
            raise ValueError(
                f"a ranking names each of {len(candidates)} candidates at most once, not {groups}"
            )
        ranks = [(rank, index) for rank, group in enumerate(groups) for index in sorted(group)]
        preferences = tuple(
            Preference(first, second, tie=rank == other, gap=other - rank)
            for (rank, first), (other, second) in combinations(ranks, 2)
        )
        return cls(tuple(prompt), tuple(candidates), preferences, id, source, author)


def root_of(row: Dialogue | Comparison) -> str:
    """The first user message, by which a conversation is known when data is split, however it is spaced and cased."""
    messages = row.messages if isinstance(row, Dialogue) else row.prompt
    root = next((message.content for message in messages if message.role == "user"), "")
    return " ".join(unicodedata.normalize("NFKC", root).casefold().split())


def split_key(root: str) -> str:
    """By what a root falls on a side when data is split: 32 hexadecimal digits that do not tell its words."""
    return hashlib.sha256(root.encode("utf-8", "replace")).hexdigest()[:32]


def check_turns(messages: Sequence[Message], *, last: Role | None = None) -> str | None:
    """What is wrong with the order of the turns, in words, or None.

    An optional system message, then user and assistant in turn, beginning with the user; `last` is the
    role that the final message must have.
    """
    turns = messages[1:] if messages and messages[0].role == "system" else messages
    if not turns:
        return Sentence("there is no user message")
    for index, message in enumerate(turns):
        expected = "assistant" if index % 2 else "user"
        if message.role != expected:
            wrong = "turn {number} should be the {expected}'s, not the {found}'s"
            return Sentence(wrong, number=index + 1, expected=expected, found=message.role)
    if last is not None and turns[-1].role != last:
        wrong = "the last message should be the {expected}'s, not the {found}'s"
        return Sentence(wrong, expected=last, found=turns[-1].role)
    return None
