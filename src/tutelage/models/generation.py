"""Continuous batching: many completions share one batch, each in a slot of one key-value cache.

Rollouts, candidates for ranking and chat all generate here. A waiting request is read into a free slot between
two steps; a finished one hands its slot to the last running one, so the running slots are always 0..n-1.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from tutelage.errors import ContextTooLong
from tutelage.models.interface import Cache, CausalModel
from tutelage.models.layout import sequences
from tutelage.models.sampling import RowSampling, draw

PREFILL_TOKENS = 2048
_CACHE_STEP = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to generate. `seed` makes it repeatable, whatever else runs in the batch.

    stop_ids: tokens that end this completion, beside those of its batch.
    logit_bias: what is added to the logits of single tokens.
    presence_penalty, frequency_penalty: what is taken from the logit of a token that this completion has already
    drawn: once, and once for every time it was drawn.
    top_logprobs: how many of the most probable tokens to name at every place.
    """

    prompt_ids: Sequence[int]
    max_tokens: int
    seed: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop_ids: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0


@dataclass(frozen=True, slots=True)
class Token:
    """One sampled token of the request `key`. The end token is given too, with finish reason `stop`.

    `logprob` is taken under the model's own distribution, without temperature, bias and penalties, and so are
    `top_logprobs`: the ids and log-probabilities of the most probable tokens, best first, as many as asked for.
    """

    key: int
    token_id: int
    logprob: float
    finish_reason: Literal["stop", "length"] | None
    top_logprobs: tuple[tuple[int, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Completion:
    """A whole sampled completion. With finish reason `stop`, the last token is the end token."""

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: Literal["stop", "length"]


class _Running:
    """A request in a slot. `length` tokens are in the cache; `last` is sampled but not in it yet."""

    __slots__ = ("key", "last", "length", "made", "random", "request")

    def __init__(self, key: int, request: Request) -> None:
        self.key = key
        self.request = request
        self.random = torch.Generator().manual_seed(request.seed)
        self.length = len(request.prompt_ids)
        self.last = -1
        self.made = 0


class Batch:
    """A running batch of at most `slots` completions; further requests wait in line.

    One thread at a time may use it.
    """

    def __init__(
        self, model: CausalModel, stop_ids: frozenset[int], *, slots: int, context_length: int = 0
    ) -> None:
        self.context_length = min(context_length or model.context_length, model.context_length)
        self._model = model
        self._stop_ids = stop_ids
        self._slots = slots
        self._room = min(_CACHE_STEP, self.context_length)
        self._cache: Cache = model.new_cache(slots, self._room)
        self._waiting: deque[_Running] = deque()
        self._running: list[_Running] = []
        self._next_key = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._running or self._waiting)

    def add(self, request: Request) -> int:
        """Queue a completion; returns the key that its tokens carry.

        Raises ContextTooLong when the prompt leaves no room for a single token.
        """
        length = len(request.prompt_ids)
        if length >= self.context_length:
            raise ContextTooLong(
                f"the prompt has {length} tokens, and the model's context holds {self.context_length}",
                hint="shorten the message, or start a new dialogue",
                code="context_length_exceeded",
            )
        self._next_key += 1
        self._waiting.append(_Running(self._next_key, request))
        return self._next_key

    def cancel(self, key: int) -> None:
        """Forget a request; its slot is free at once. Unknown and finished keys are ignored."""
        self._waiting = deque(each for each in self._waiting if each.key != key)
        for slot, each in enumerate(self._running):
            if each.key == key:
                self._release(slot)
                return

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Read waiting prompts into free slots, then add one token to every running completion."""
        tokens = self._admit()
        if self._running:
            tokens += self._decode()
        return tokens

    def _admit(self) -> list[Token]:
        """Prefill as many waiting requests as fit; their first tokens come from the prompt's last state."""
        first = len(self._running)
        budget = PREFILL_TOKENS
        while self._waiting and len(self._running) < self._slots:
            budget -= self._waiting[0].length
            if budget < 0 and len(self._running) > first:
                break
            self._running.append(self._waiting.popleft())
        admitted = self._running[first:]
        if not admitted:
            return []
        self._grow(max(each.length for each in admitted) + 1)
        device = self._model.device
        layout = sequences([each.length for each in admitted]).to(device)
        flat = torch.tensor([t for each in admitted for t in each.request.prompt_ids], device=device)
        slots = torch.arange(first, len(self._running), device=device)
        states = self._model.prefill(flat, layout, self._cache, slots)
        ends = torch.tensor([each.length for each in admitted], device=device).cumsum(0) - 1
        return self._sample(states[ends], first)

    def _decode(self) -> list[Token]:
        running = self._running
        self._grow(max(each.length for each in running) + 1)
        device = self._model.device
        last = torch.tensor([each.last for each in running], device=device)
        places = torch.tensor([each.length for each in running], device=device)
        states = self._model.step(last, self._cache, places)
        for each in running:
            each.length += 1
        return self._sample(states, 0)

    def _sample(self, states: torch.Tensor, first: int) -> list[Token]:
        """Draw a token for the running completions from slot `first` on; release those that end."""
        running = self._running[first:]
        settings = [each.request for each in running]
        device = states.device
        sampling = RowSampling(
            temperature=torch.tensor([each.temperature for each in settings], device=device),
            top_p=torch.tensor([each.top_p for each in settings], device=device),
            uniform=torch.cat([torch.rand(1, generator=each.random) for each in running]).to(device),
        )
        drawn, logprobs = draw(self._model.logits(states), sampling)
        tokens = []
        for each, token_id, logprob in zip(running, drawn.tolist(), logprobs.tolist(), strict=True):
            each.last = token_id
            each.made += 1
            tokens.append(Token(each.key, token_id, logprob, self._finish_reason(each)))
        for slot in range(len(self._running) - 1, first - 1, -1):
            if tokens[slot - first].finish_reason:
                self._release(slot)
        return tokens

    def _finish_reason(self, each: _Running) -> Literal["stop", "length"] | None:
        if each.last in self._stop_ids:
            return "stop"
        # The last token stands in the context too, though it never enters the cache.
        if each.made >= each.request.max_tokens or each.length + 1 >= self.context_length:
            return "length"
        return None

    def _release(self, slot: int) -> None:
        last = len(self._running) - 1
        if slot != last:
            moved = self._running[last]
            self._cache.move(last, slot, moved.length)
            self._running[slot] = moved
        self._running.pop()

    def _grow(self, length: int) -> None:
        """Make the cache hold at least `length` places a slot."""
        if length <= self._room:
            return
        self._room = min(max(2 * self._room, -(-length // _CACHE_STEP) * _CACHE_STEP), self.context_length)
        self._cache = self._cache.grown(self._room)


def complete(
    model: CausalModel,
    stop_ids: frozenset[int],
    requests: Sequence[Request],
    *,
    slots: int = 32,
    progress: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Generate every request in one continuous batch; results stand in the order of the requests.

    progress: called with the number of completions that have just finished.
    """
    batch = Batch(model, stop_ids, slots=min(slots, max(1, len(requests))))
    order = {batch.add(request): index for index, request in enumerate(requests)}
    drawn: list[list[Token]] = [[] for _ in requests]
    while batch.busy:
        finished = 0
        for token in batch.step():
            drawn[order[token.key]].append(token)
            finished += token.finish_reason is not None
        if progress and finished:
            progress(finished)
    return [_completion(tokens) for tokens in drawn]


def _completion(tokens: list[Token]) -> Completion:
    reason = tokens[-1].finish_reason
    assert reason is not None
    return Completion(tuple(t.token_id for t in tokens), tuple(t.logprob for t in tokens), reason)
