"""Long threads in parts: a page shows the end of a branch, and fetches the rest when somebody scrolls up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from tutelage.errors import NotFound
from tutelage.store import dialogues, feedback, pairs, picks
from tutelage.store.campaigns import entries
from tutelage.store.tables import Message, Pick, User
from tutelage.web.views import MessageView, as_pair, compared, message_views, rating_dict

SHOWN = 60
CONTEXT = 6
"""How many messages are shown above one that somebody looks for."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some messages in a row. `more` says that others come before them; `instructions` what the dialogue began with."""

    messages: Sequence[MessageView]
    more: bool = False
    instructions: str = ""


EMPTY = Part([])


@dataclass(frozen=True, slots=True)
class Thread:
    """One branch, root first, with what its reader thinks of it. Only the parts that are asked for are rendered.

    `pair` holds the two answers side by side with which it ends, while their reader has not chosen one.
    """

    rows: Sequence[tuple[Message, Sequence[str]]]
    instructions: str
    ratings: dict[str, dict[str, Any]]
    picks: dict[str, Pick]
    pair: tuple[Message, Message] | None = None

    def end(self, *, including: str | None = None) -> Part:
        """The last messages, as many as one page shows, or more when another one is looked for."""
        first = max(0, len(self.rows) - SHOWN)
        if including is not None:
            first = max(0, min(first, self._place(including) - CONTEXT))
        return self._part(first, len(self.rows))

    def before(self, message_id: str) -> Part:
        """The messages before another one, as many as one page shows. Raises NotFound."""
        last = self._place(message_id)
        return self._part(max(0, last - SHOWN), last)

    def since(self, message_id: str, *, itself: bool) -> Part:
        """The messages from another one on. Raises NotFound."""
        return self._part(self._place(message_id) + (not itself), len(self.rows), top=False)

    def only(self, message_id: str) -> MessageView:
        """A single message. Raises NotFound."""
        place = self._place(message_id)
        return self._part(place, place + 1).messages[0]

    def _place(self, message_id: str) -> int:
        for place, (row, _) in enumerate(self.rows):
            if row.id == message_id:
                return place
        raise NotFound("There is no such message.")

    def _part(self, first: int, last: int, *, top: bool = True) -> Part:
        views = message_views(self.rows[first:last], self.ratings, self.picks)
        if self.pair is not None and last == len(self.rows):
            views[-1] = as_pair(views[-1], self.pair)
        instructions = self.instructions if top and not first else ""
        return Part(views, more=top and first > 0, instructions=instructions)


def read_thread(tx: Session, user: User, dialogue_id: str, *, leaf_id: str | None) -> Thread:
    """The branch through a message, or the newest. Raises NotFound for a message that is not in the dialogue."""
    rows = dialogues.thread(tx, dialogue_id, leaf_id=leaf_id)
    ids = [row.id for row, _ in rows]
    chosen = picks.picks_for(tx, [compared(row) for row, _ in rows], user.id)
    end = rows[-1][0] if rows and rows[-1][0].id != leaf_id else None
    pair = None if end is None or compared(end) in chosen else pairs.pair_of(tx, end)
    ratings = feedback.ratings_for(tx, ids, user.id)
    entered = entries.campaigns_of(tx, list(ratings.values()))
    return Thread(
        rows=[pair for pair in rows if pair[0].role != "system"],
        instructions=next((row.content for row, _ in rows if row.role == "system"), ""),
        ratings={name: rating_dict(row, entered[row.id]) for name, row in ratings.items()},
        picks=chosen,
        pair=pair if pair and all(answer.status != "blocked" for answer in pair) else None,
    )


def read_pair(tx: Session, user: User, answer_id: str) -> MessageView:
    """An answer and the one beside it, chosen or not. Raises NotFound."""
    answer = dialogues.get_message(tx, answer_id, owner_id=user.id)
    pair = pairs.pair_of(tx, answer)
    if pair is None:
        raise NotFound("There is no answer beside this one.")
    thread = read_thread(tx, user, answer.dialogue_id, leaf_id=answer_id)
    return as_pair(thread.only(answer_id), pair)
