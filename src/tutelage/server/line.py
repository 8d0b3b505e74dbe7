"""A fair line for answers: so many are written at once, and whoever has the fewest goes first."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from tutelage.errors import Unavailable
from tutelage.store.usage import ChatSettings

LONGEST = 100


class AtCapacity(Unavailable):
    """So many people are waiting that one more would wait too long."""

    code = "at_capacity"
    retry_after = 30.0


@dataclass(eq=False, slots=True)
class _Waiting:
    """Somebody in the line; `tell` is called with their place, from 1, whenever it changes."""

    user_id: str
    tell: Callable[[int], None]
    place: int = 0
    admitted: asyncio.Event = field(default_factory=asyncio.Event)


class Line:
    """All the places of one server. Nobody passes on the ground of asking often: places go round by person."""

    def __init__(self, places: int = ChatSettings().answers_at_once, longest: int = LONGEST) -> None:
        self.places = places
        self.longest = longest
        self._held: Counter[str] = Counter()
        self._turns: dict[str, int] = {}  # when each person present was let in last, as a running number
        self._waiting: list[_Waiting] = []

    @property
    def length(self) -> int:
        """How many are waiting."""
        return len(self._waiting)

    def has_room(self, count: int) -> bool:
        """Whether `count` more answers could begin at once."""
        return not self._waiting and self._held.total() + count <= self.places

    def check(self) -> None:
        """Raise AtCapacity when the line is as long as it may be."""
        if self.length >= self.longest:
            raise AtCapacity(
                "This server is at capacity right now.", hint="Try again in a few minutes; nothing is lost."
            )

    @asynccontextmanager
    async def place(self, user_id: str, tell: Callable[[int], None]) -> AsyncIterator[None]:
        """Wait for a place and hold it. Who leaves early leaves the line."""
        waiting = _Waiting(user_id, tell)
        self._waiting.append(waiting)
        try:
            self._move_up()
            await waiting.admitted.wait()
            yield
        finally:
            if waiting.admitted.is_set():
                self._held[user_id] -= 1
            else:
                self._waiting.remove(waiting)
            self._forget(user_id)
            self._move_up()

    def _move_up(self) -> None:
        """Let in whom there is room for, and tell the others where they stand."""
        order = self._order()
        free = max(0, self.places - self._held.total())
        for waiting in order[:free]:
            self._waiting.remove(waiting)
            _admit(waiting.user_id, self._held, self._turns)
            waiting.admitted.set()
        for place, waiting in enumerate(order[free:], 1):
            if waiting.place != place:
                waiting.place = place
                waiting.tell(place)

    def _order(self) -> list[_Waiting]:
        """In which order those who wait come in: fewest answers under way, longest not let in, came first."""
        held, turns = self._held.copy(), dict(self._turns)
        rest, order = list(self._waiting), list[_Waiting]()
        while rest:
            following = min(rest, key=lambda each: (held[each.user_id], turns.get(each.user_id, 0)))
            _admit(following.user_id, held, turns)
            rest.remove(following)
            order.append(following)
        return order

    def _forget(self, user_id: str) -> None:
        """Keep nothing of a person who is not here any more."""
        if not self._held[user_id]:
            del self._held[user_id]
            if not any(waiting.user_id == user_id for waiting in self._waiting):
                self._turns.pop(user_id, None)


def _admit(user_id: str, held: Counter[str], turns: dict[str, int]) -> None:
    held[user_id] += 1
    turns[user_id] = max(turns.values(), default=0) + 1
