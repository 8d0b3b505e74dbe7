"""What a server may ask of a model: tokens in, a stream of tokens out. No torch here."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from tutelage.rendering import Renderer

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one completion is drawn. `temperature` 0 is greedy; `top_p` 1 draws from the whole distribution.

    `seed` makes the answer repeatable; `max_tokens` None means up to the end of the context.
    """

    temperature: float = 0.7
    top_p: float = 0.95
    max_tokens: int | None = 512
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class TokenChunk:
    """The next tokens of one completion, never empty unless `finish_reason` is set.

    `token_ids` never holds the end token. `logprobs[i]` is the natural log-probability under the model's
    untempered distribution of `token_ids[i]`.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    finish_reason: FinishReason | None = None


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

    def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        """Stream one completion; the last chunk has a finish reason.

        Raises ContextTooLong before the first chunk when the prompt leaves no room for an answer,
        Unavailable when the engine is closing.
        """

    async def close(self) -> None:
        """Finish the completions under way, then free the model."""
