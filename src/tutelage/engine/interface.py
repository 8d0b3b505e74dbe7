"""What a server may ask of a model: tokens in, a stream of tokens out. No torch here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, Protocol

from tutelage.rendering import Renderer

FinishReason = Literal["stop", "length"]
Score = tuple[float, tuple[tuple[int, float], ...]]
"""A token's natural log-probability, and the ids and log-probabilities of the most probable tokens at its place."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one completion is drawn. `temperature` 0 is greedy; `top_p` 1 draws from the whole distribution.

    `seed` makes the answer repeatable; `max_tokens` None means up to the end of the context.
    stop_ids: tokens that end this completion, beside the model's own end tokens.
    logit_bias: what is added to the logits of single tokens.
    presence_penalty, frequency_penalty: what is taken from the logit of a token that this completion has already
    drawn: once, and once for every time it was drawn.
    top_logprobs: how many of the most probable tokens to name at every place.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int | None = 512
    seed: int | None = None
    stop_ids: frozenset[int] = frozenset()
    logit_bias: Mapping[int, float] = field(default_factory=dict, hash=False)
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    top_logprobs: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "stop_ids": sorted(self.stop_ids)}


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """The next tokens of one completion, never empty unless `finish_reason` is set.

    `token_ids` never holds the end token. `logprobs[i]` is the natural log-probability of `token_ids[i]` under the
    model's own distribution, without temperature, bias and penalties. `top_logprobs[i]` are the ids and
    log-probabilities of the most probable tokens at that place, best first, as many as were asked for.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None
    top_logprobs: tuple[tuple[tuple[int, float], ...], ...] = ()


class Engine(Protocol):
    """One loaded model version. Many `generate` calls run at once and share one batch.

    Leaving the iterator early (`aclose`, cancellation) frees its slot at the next step.
    """

    @property
    def version(self) -> str:
        """Name of the model version whose weights answer."""

    @property
    def renderer(self) -> Renderer:
        """Turns dialogues into this model's tokens and back."""

    @property
    def context_length(self) -> int:
        """Prompt and completion together, in tokens."""

    @property
    def broken(self) -> bool:
        """Whether it can answer no more, for a reason of its own: the version has to be loaded anew."""

    def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        """Stream one completion; the last chunk has a finish reason.

        Raises ContextTooLong before the first chunk when the prompt leaves no room for an answer,
        Unavailable when the engine is closing.
        """

    async def score(self, token_ids: Sequence[int], *, top: int = 0) -> list[Score]:
        """How probable these tokens are: one score for each but the first, given all those before it.

        Raises ContextTooLong for more tokens than the context holds, Unavailable when the engine is closing.
        """

    async def close(self) -> None:
        """Finish the completions under way, then free the model."""


@dataclass(frozen=True, slots=True)
class Reward:
    """What a reward model says of one completion: the mean over its members, and their deviation from it."""

    value: float
    deviation: float


class Scorer(Protocol):
    """One loaded reward version."""

    @property
    def version(self) -> str:
        """Name of the reward version."""

    @property
    def renderer(self) -> Renderer:
        """Turns dialogues into this model's tokens."""

    @property
    def context_length(self) -> int:
        """Prompt and completion together, in tokens."""

    @property
    def temperature(self) -> float:
        """P(a is better than b) = sigmoid((reward of a - reward of b) / temperature)."""

    async def rewards(self, dialogues: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Reward]:
        """The reward of each (prompt ids, completion ids), read at the completion's last token."""
