"""Rows as the templates want them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from markupsafe import Markup

from tutelage.store import pairs
from tutelage.store.continuing import cut_off
from tutelage.store.tables import Message, Pick, Rating
from tutelage.web import markdown


@dataclass(frozen=True, slots=True)
class MessageView:
    """One message of a thread.

    `branches` are the ids of its siblings and itself, oldest first; `dropped` is how many old messages
    the model could not read any more when it answered. `pick` is what the reader thinks of it beside the branch before,
    or of the two answers of which `beside` names the other; `pair` holds both when they are to be shown together. One
    that was `cut_off` may go on.
    """

    id: str
    parent_id: str | None
    role: str
    content: str
    html: Markup
    status: str
    finish_reason: str | None
    model_version: str | None
    branches: Sequence[str]
    verdict: Mapping[str, Any]
    dropped: int
    rating: dict[str, Any] | None
    pick: str | None
    beside: str | None
    cut_off: bool
    pair: tuple[MessageView, MessageView] | None = None

    @property
    def hidden(self) -> bool:
        """Whether the filter keeps this text from being shown. People always see their own words."""
        return self.role == "assistant" and self.verdict_state == "blocked"

    @property
    def verdict_state(self) -> str:
        if self.status == "blocked":
            return "blocked"
        return str(self.verdict.get("state", "unchecked"))

    @property
    def categories(self) -> list[str]:
        return list(self.verdict.get("categories", ()))

    @property
    def help(self) -> str | None:
        """A text for somebody who may be about to hurt themselves."""
        return self.verdict.get("help")

    @property
    def rated(self) -> str | None:
        return self.rating["verdict"] if self.rating else None

    @property
    def standing(self) -> str | None:
        """What the reader found, of two answers side by side: this one `best`, the `other`, or neither."""
        if self.pick not in ("first", "second") or self.beside is None:
            return self.pick
        return "best" if (self.pick == "first") == (self.id < self.beside) else "other"

    @property
    def place(self) -> int:
        """Which of the branches this is, from 1."""
        return self.branches.index(self.id) + 1

    @property
    def previous(self) -> str | None:
        return self.branches[self.place - 2] if self.place > 1 else None

    @property
    def next(self) -> str | None:
        return self.branches[self.place] if self.place < len(self.branches) else None


def message_views(
    thread: Iterable[tuple[Message, Sequence[str]]],
    ratings: Mapping[str, dict[str, Any]],
    picks: Mapping[str, Pick] | None = None,
) -> list[MessageView]:
    """A thread for the page, with its reader's ratings as `rating_dict`; system messages are not part of it."""
    return [
        message_view(message, branches, ratings.get(message.id), (picks or {}).get(compared(message)))
        for message, branches in thread
        if message.role != "system"
    ]


def message_view(
    message: Message, branches: Sequence[str], rating: dict[str, Any] | None, pick: Pick | None = None
) -> MessageView:
    """One message for the page, its Markdown rendered. What a reader wrote is shown as they wrote it."""
    done = message.role == "assistant" and message.status != "running"
    return MessageView(
        id=message.id,
        parent_id=message.parent_id,
        role=message.role,
        content=message.content,
        html=Markup(markdown.render(message.content)) if done else Markup(),
        status=message.status,
        finish_reason=message.finish_reason,
        model_version=message.model_version,
        branches=branches,
        verdict=message.filter_verdict or {},
        dropped=(message.provenance or {}).get("dropped_messages", 0),
        rating=rating,
        pick=None if pick is None else pick.verdict,
        beside=pairs.beside(message),
        cut_off=cut_off(message),
    )


def compared(message: Message) -> str:
    """The second answer of the comparison that a message is part of."""
    return max(message.id, pairs.beside(message) or "")


def as_pair(view: MessageView, answers: tuple[Message, Message]) -> MessageView:
    """An answer together with the one beside it."""
    first, second = (message_view(answer, [answer.id], None) for answer in answers)
    return replace(view, pair=(first, second))


def rating_dict(rating: Rating, entered: Sequence[str] = ()) -> dict[str, Any]:
    """A rating for the feedback dialog, with the ids of the campaigns that it was entered into."""
    return {
        "verdict": rating.verdict,
        "reasons": rating.reasons,
        "note": rating.note,
        "ideal": rating.ideal,
        "entered": list(entered),
    }
