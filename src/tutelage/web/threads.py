"""Long threads in parts: a page shows the end of a branch, and fetches the rest when somebody scrolls up to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from tutelage.errors import NotFound
from tutelage.store import dialogues, feedback, picks
from tutelage.store.tables import Message, Pick, Rating, User
from tutelage.web.views import MessageView, message_views

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
    """One branch, root first, with what its reader thinks of it. Only the parts that are asked for are rendered."""

    rows: Sequence[tuple[Message, Sequence[str]]]
    instructions: str
    ratings: dict[str, Rating]
    picks: dict[str, Pick]

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
        instructions = self.instructions if top and not first else ""
        return Part(views, more=top and first > 0, instructions=instructions)


def read_thread(tx: Session, user: User, dialogue_id: str, *, leaf_id: str | None) -> Thread:
    """The branch through a message, or the newest. Raises NotFound for a message that is not in the dialogue."""
    rows = dialogues.thread(tx, dialogue_id, leaf_id=leaf_id)
    ids = [row.id for row, _ in rows]
    return Thread(
        rows=[pair for pair in rows if pair[0].role != "system"],
        instructions=next((row.content for row, _ in rows if row.role == "system"), ""),
        ratings=feedback.ratings_for(tx, ids, user.id),
        picks=picks.picks_for(tx, ids, user.id),
    )
