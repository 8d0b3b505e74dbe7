"""Continuous batching: many completions share one batch, each in a slot of one key-value cache.

Rollouts, candidates for ranking and chat all generate here. A waiting request is read into a free slot between
two steps; a finished one hands its slot to the last running one, so the running slots are always 0..n-1.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from tutelage.errors import ContextTooLong, InvalidRequest, ModelError, Sentence
from tutelage.models.interface import Cache, CausalModel, Span
from tutelage.models.prefixes import WORTH_SHARING, KeptPrefixes, shared
from tutelage.models.rows import Rows
from tutelage.models.running import Admission, Running, best, edits
from tutelage.models.sampling import draw

PREFILL_TOKENS = 2048
FULL_BATCH = (
    64  # slots of a batch that nobody waits for: a quarter faster than 32 on two cores, twice on a GPU
)
_STRIDE = 32  # places by which a cache grows on a CPU
_GPU_ROOM = 256  # on a GPU it is this, twice this, four times this …: steps are captured anew for every size


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One completion to generate. `seed` makes it repeatable, whatever else runs in the batch.

    stop_ids: tokens that end this completion, beside those of its batch.
    logit_bias: what is added to the logits of single tokens.
    presence_penalty, frequency_penalty: what is taken from the logit of a token that this completion has already
    drawn: once, and once for every time it was drawn.
    top_logprobs: how many of the most probable tokens to name at every place.
    afresh: read the whole prompt, whatever is kept of it. What was read in other portions differs in its last bits,
    and a draw may turn on them.
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
    afresh: bool = False

    @property
    def has_penalties(self) -> bool:
        return bool(self.presence_penalty or self.frequency_penalty)


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


class Batch:
    """A running batch of at most `slots` completions; further requests wait in line.

    portion: how many tokens of prompts a step reads while completions are under way, so that these never wait long.
    kept_bytes: memory for finished sequences; a prompt that begins like one of them is read from where it differs.
    The adapter that is active now is taken as it is now. One thread at a time may use a batch.
    """

    def __init__(
        self,
        model: CausalModel,
        stop_ids: frozenset[int],
        *,
        slots: int,
        context_length: int = 0,
        portion: int = PREFILL_TOKENS,
        kept_bytes: int = 0,
    ) -> None:
        self.context_length = min(context_length or model.context_length, model.context_length)
        self._model = model
        self._stop_ids = stop_ids
        self._slots = slots
        self._portion = portion
        self._room, self._seats = self._roomy(1), self._seated(1)
        # The slot behind the others is for a prompt that is read in several portions.
        self._cache: Cache = model.new_cache(self._seats + 1, self._room)
        self._kept = KeptPrefixes(kept_bytes if self._cache.partial else 0)
        self._rows = Rows(slots, model.device)
        self._waiting: deque[Running] = deque()
        self._reading: Running | None = None
        self._running: list[Running] = []
        self._next_key = 0

    @property
    def busy(self) -> bool:
        """Whether a step would do anything."""
        return bool(self._running or self._waiting or self._reading)

    def check(self, request: Request) -> None:
        """Raise ContextTooLong when the prompt leaves no room for a single token, InvalidRequest for what cannot be."""
        length = len(request.prompt_ids)
        if not length:
            raise InvalidRequest("the prompt is empty", hint="send at least one token")
        if length >= self.context_length:
            raise ContextTooLong(
                Sentence(
                    "the prompt has {tokens} tokens, and the model's context holds {most}",
                    tokens=length,
                    most=self.context_length,
                ),
                hint="shorten the message, or start a new dialogue",
                code="context_length_exceeded",
            )
        vocabulary = len(self._model.head)
        unknown = [token for token in request.logit_bias if not 0 <= token < vocabulary]
        if unknown:
            raise InvalidRequest(
                Sentence(
                    "the model has no token {token}: its tokens are 0 to {last}",
                    token=unknown[0],
                    last=vocabulary - 1,
                ),
                param="logit_bias",
            )

    def add(self, request: Request) -> int:
        """Queue a completion; returns the key that its tokens carry. Raises what `check` raises."""
        self.check(request)
        self._next_key += 1
        self._waiting.append(Running(self._next_key, request))
        return self._next_key

    @torch.inference_mode()
    def cancel(self, key: int) -> None:
        """Forget a request; its slot is free at once. Unknown and finished keys are ignored."""
        self._waiting = deque(each for each in self._waiting if each.key != key)
        if self._reading is not None and self._reading.key == key:
            self._reading = None
        for slot, each in enumerate(self._running):
            if each.key == key:
                self._release(slot)
                return

    def close(self) -> None:
        """Forget everything, and leave the model as it was: it can be trained again."""
        self._waiting.clear()
        self._running.clear()
        self._reading = None
        self._cache.release()

    @torch.inference_mode()
    def step(self) -> list[Token]:
        """Read waiting prompts into free slots, then add one token to every running completion."""
        tokens = self._admit()
        if self._running:
            tokens += self._decode()
        return tokens

    def _admit(self) -> list[Token]:
        """Read as much of the waiting prompts as fits; first tokens come from the states of their ends."""
        self._fit(self._room, self._wanted_seats())
        admission = Admission(self._portion if self._running else max(self._portion, PREFILL_TOKENS))
        if self._reading is not None:
            self._go_on(self._reading, admission)
        first = len(self._running)
        while self._waiting and not self._reading and first + len(admission.joining) < self._slots:
            if not self._begin(self._waiting[0], first + len(admission.joining), admission):
                break
            self._waiting.popleft()
        if not admission.pieces:
            return []
        logits = self._model.read(admission.pieces, self._cache)
        for each, index in admission.joining:
            self._move(admission.pieces[index].slot, len(self._running), each.length)
            self._running.append(each)
        joined = self._running[first:]
        if not joined:
            return []
        self._rows.put(first, [each.request for each in joined])
        return self._sample(logits[[index for _, index in admission.joining]], first)

    def _begin(self, each: Running, slot: int, admission: Admission) -> bool:
        """Read a prompt, or the part of it that fits, unless another step had better do it."""
        leader = admission.leaders.get(tuple(each.ids))
        if leader is not None:
            each.length = len(each.ids)
            admission.joining.append((each, leader))
            return True
        known, source = (0, None) if each.request.afresh else self._known(each.ids)
        rest = len(each.ids) - known
        if rest > admission.budget and admission.pieces and rest <= self._portion:
            return False
        self._fit(max(len(each.ids) + 1, self._room), self._seats)
        if rest > admission.budget:
            self._reading, slot = each, self._seats
        if isinstance(source, int):
            self._cache.copy(source, slot, known)
        elif source is not None:
            self._cache.put(slot, source, known)
        each.length = known
        admission.read(each, slot, min(rest, admission.budget))
        return True

    def _go_on(self, each: Running, admission: Admission) -> None:
        """Read the next portion of a long prompt."""
        admission.read(each, self._seats, min(admission.budget, len(each.ids) - each.length))
        if each.length == len(each.ids):
            self._reading = None

    def _known(self, prompt_ids: list[int]) -> tuple[int, int | Span | None]:
        """How many tokens of a prompt need no reading, and the slot or span that has them; the last one always does."""
        if not self._cache.partial:
            return 0, None
        known, source = self._kept.find(prompt_ids)
        best: tuple[int, int | Span | None] = (known, source)
        for slot, each in enumerate(self._running):
            known = min(each.length, shared(each.ids, prompt_ids))
            if known > best[0]:
                best = known, slot
        known = min(best[0], len(prompt_ids) - 1)
        return (known, best[1]) if known >= WORTH_SHARING else (0, None)

    def _decode(self) -> list[Token]:
        count = len(self._running)
        self._fit(1 + max(each.length for each in self._running), self._wanted_seats())
        places = self._rows.places[:count]
        logits = self._model.step(self._rows.last[:count], self._cache, places)
        places += 1
        for each in self._running:
            each.length += 1
        return self._sample(logits, 0)

    def _sample(self, logits: torch.Tensor, first: int) -> list[Token]:
        """Draw a token for the running completions from slot `first` on; release those that end.

        Raises ModelError when the model computes no numbers.
        """
        running = self._running[first:]
        requests = [each.request for each in running]
        drawn = draw(
            logits,
            self._rows.sampling(first, requests),
            edits=edits(running, self._model.device),
            top=max(each.top_logprobs for each in requests),
        )
        self._rows.drew(first, drawn.tokens)
        logprobs = drawn.logprobs.tolist()
        if math.isnan(sum(logprobs)):
            raise ModelError(
                "the model's probabilities are no numbers: its weights are broken, or training has driven them apart",
                hint="take the version or the checkpoint before; in training, lower learning_rate and train anew",
            )
        named = best(drawn, requests)
        tokens = []
        for each, token_id, logprob, top in zip(running, drawn.tokens.tolist(), logprobs, named, strict=True):
            each.ids.append(token_id)
            if each.request.has_penalties:
                each.drawn[token_id] += 1
            tokens.append(Token(each.key, token_id, logprob, self._finish_reason(each), top))
        for slot in range(len(self._running) - 1, first - 1, -1):
            if tokens[slot - first].finish_reason:
                self._release(slot)
        return tokens

    def _finish_reason(self, each: Running) -> Literal["stop", "length"] | None:
        if each.ids[-1] in self._stop_ids or each.ids[-1] in each.request.stop_ids:
            return "stop"
        # The last token stands in the context too, though it never enters the cache.
        if each.made >= each.request.max_tokens or len(each.ids) >= self.context_length:
            return "length"
        return None

    def _release(self, slot: int) -> None:
        """Free a slot: the last running completion moves into it."""
        each, last = self._running[slot], len(self._running) - 1
        self._kept.keep(each.ids[: each.length], lambda: self._cache.take(slot, each.length))
        if slot != last:
            self._running[slot] = self._running[last]
            self._rows.move(last, slot)
            self._move(last, slot, self._running[slot].length)
        self._running.pop()

    def _move(self, source: int, target: int, length: int) -> None:
        if source != target:
            self._cache.copy(source, target, length)

    def _roomy(self, longest: int) -> int:
        """How long a cache should be for sequences of up to this length."""
        if self._model.device.type == "cuda":
            return max(_GPU_ROOM, 1 << (longest - 1).bit_length())
        return -(-longest // _STRIDE) * _STRIDE

    def _seated(self, sequences: int) -> int:
        """How many slots a cache should have for so many sequences."""
        if self._model.device.type == "cuda":
            return self._slots
        return min(self._slots, 1 << max(0, sequences - 1).bit_length())

    def _wanted_seats(self) -> int:
        """Slots for what runs, is read and waits; they never become fewer under a prompt that is being read."""
        if self._reading is None:
            return self._seated(len(self._running) + len(self._waiting))
        return max(self._seats, self._seated(len(self._running) + len(self._waiting) + 1))

    def _fit(self, longest: int, seats: int) -> None:
        """Make the cache as long as its longest sequence, or a little longer: products read it whole. Slots that nobody
        uses are none of it: they would be resized with the others.
        """
        if self._reading is not None:
            longest = max(longest, len(self._reading.ids))
        room = self._roomy(longest)
        if self._room / 2 <= room <= self._room and self._seats / 2 <= seats <= self._seats:
            return
        self._cache = self._cache.resized(room, seats + 1)
        if self._reading is not None:
            self._move(self._seats, seats, self._reading.length)
        self._room, self._seats = room, seats


def complete(
    model: CausalModel,
    stop_ids: frozenset[int],
    requests: Sequence[Request],
    *,
    slots: int = FULL_BATCH,
    progress: Callable[[int], None] | None = None,
) -> list[Completion]:
    """Generate every request in one continuous batch; results stand in the order of the requests.

    progress: called with the number of completions that have just finished.
    """
    batch = Batch(model, stop_ids, slots=min(slots, max(1, len(requests))))
    drawn: list[list[Token]] = [[] for _ in requests]
    try:
        order = {batch.add(request): index for index, request in enumerate(requests)}
        while batch.busy:
            finished = 0
            for token in batch.step():
                drawn[order[token.key]].append(token)
                finished += token.finish_reason is not None
            if progress and finished:
                progress(finished)
    finally:
        batch.close()
    return [_completion(tokens) for tokens in drawn]


def _completion(tokens: list[Token]) -> Completion:
    reason = tokens[-1].finish_reason
    assert reason is not None
    return Completion(tuple(t.token_id for t in tokens), tuple(t.logprob for t in tokens), reason)
