"""Requests on their way through a batch: what a step reads of their prompts, and what it does to their logits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch

from tutelage.models.interface import Piece
from tutelage.models.sampling import Drawn, Edits

if TYPE_CHECKING:
    from tutelage.models.generation import Request


class Running:
    """A request in a slot. `ids` are its prompt and what was drawn; the first `length` of them are in the cache."""

    __slots__ = ("drawn", "ids", "key", "length", "request")

    def __init__(self, key: int, request: Request) -> None:
        self.key = key
        self.request = request
        self.ids = list(request.prompt_ids)
        self.length = 0
        self.drawn: Counter[int] = Counter()

    @property
    def made(self) -> int:
        return len(self.ids) - len(self.request.prompt_ids)


@dataclass(slots=True)
class Admission:
    """What one step reads of prompts. joining: requests whose prompts are complete then, each with the index of the
    piece that ends it; leaders: that index by prompt.
    """

    budget: int
    pieces: list[Piece] = field(default_factory=list)
    joining: list[tuple[Running, int]] = field(default_factory=list)
    leaders: dict[tuple[int, ...], int] = field(default_factory=dict)

    def read(self, each: Running, slot: int, count: int) -> None:
        """Read the next `count` tokens of a prompt into a slot."""
        self.pieces.append(Piece(each.ids[each.length : each.length + count], slot, each.length))
        self.budget -= count
        each.length += count
        if each.length == len(each.ids):
            self.leaders[tuple(each.ids)] = len(self.pieces) - 1
            self.joining.append((each, len(self.pieces) - 1))


def edits(running: Sequence[Running], device: torch.device) -> Edits | None:
    """What biases and penalties add to single logits. Penalties as OpenAI defines them: on what was drawn."""
    changes = [(row, *change) for row, each in enumerate(running) for change in _changes(each)]
    if not changes:
        return None
    rows, tokens, amounts = zip(*changes, strict=True)
    return Edits(
        torch.tensor(rows, device=device),
        torch.tensor(tokens, device=device),
        torch.tensor(amounts, dtype=torch.float32, device=device),
    )


def _changes(each: Running) -> Iterator[tuple[int, float]]:
    """Tokens whose logits a request changes, and by how much."""
    request = each.request
    yield from request.logit_bias.items()
    for token_id, count in each.drawn.items():
        yield token_id, -request.presence_penalty - count * request.frequency_penalty


def best(drawn: Drawn, requests: Sequence[Request]) -> list[tuple[tuple[int, float], ...]]:
    """The most probable tokens of each row, as many as its request asks for."""
    if drawn.top_ids is None or drawn.top_logprobs is None:
        return [()] * len(requests)
    rows = zip(drawn.top_ids.tolist(), drawn.top_logprobs.tolist(), requests, strict=True)
    return [tuple(zip(ids, logs, strict=True))[: each.top_logprobs] for ids, logs, each in rows]
