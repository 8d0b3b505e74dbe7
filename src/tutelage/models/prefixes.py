"""What a batch keeps of finished sequences, so that the next turn of a chat reads only what is new in it."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence

from tutelage.models.interface import Span

WORTH_SHARING = 16  # tokens; reading fewer costs less than bringing them over


def shared(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with alike."""
    length = min(len(first), len(second))
    if first[:length] == second[:length]:
        return length
    return next(place for place in range(length) if first[place] != second[place])


class KeptPrefixes:
    """Spans of finished sequences within `room` bytes; those that were not used for longest go first."""

    def __init__(self, room: int) -> None:
        self._room = room
        self._taken = 0
        self._spans: OrderedDict[tuple[int, ...], Span] = OrderedDict()

    def keep(self, token_ids: Sequence[int], take: Callable[[], Span]) -> None:
        """Keep the span of these tokens, in the place of those that it continues; it is only taken if there is room."""
        if not self._room or len(token_ids) < WORTH_SHARING:
            return
        kept, span = tuple(token_ids), take()
        for other in [other for other in self._spans if other == kept[: len(other)]]:
            self._drop(other)
        self._spans[kept] = span
        self._taken += span.size
        while self._taken > self._room:
            self._drop(next(iter(self._spans)))

    def find(self, token_ids: Sequence[int]) -> tuple[int, Span | None]:
        """The span that begins most like these tokens, and how many tokens that is."""
        wanted = tuple(token_ids)
        length, best = max(((shared(kept, wanted), kept) for kept in self._spans), default=(0, ()))
        if not length:
            return 0, None
        self._spans.move_to_end(best)
        return length, self._spans[best]

    def _drop(self, token_ids: tuple[int, ...]) -> None:
        self._taken -= self._spans.pop(token_ids).size
