"""What a client may ask of `/v1/completions`: text or tokens to be continued, or only scored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from pydantic import Field

from tutelage.errors import InvalidRequest
from tutelage.rendering import Renderer
from tutelage.server.openai.parameters import MOST_CHOICES, TextRequest
from tutelage.store.columns import clean

MOST_ALTERNATIVES = 20
DEFAULT_TOKENS = 16


class CompletionRequest(TextRequest):
    """The body of a request."""

    OFF: ClassVar[dict[str, tuple[Any, ...]]] = {"suffix": ("",)}

    prompt: str | list[str] | list[int] | list[list[int]] | None = None
    max_tokens: int | None = Field(None, ge=0, le=2**31)
    echo: bool | None = None
    logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    best_of: int | None = Field(None, ge=1, le=MOST_CHOICES)

    def check(self) -> None:
        super().check()
        if self.best_of not in (None, self.choices):
            raise InvalidRequest(
                "best_of is supported where it equals n",
                param="best_of",
                hint="leave it out, or ask for n choices and take the best by their logprobs",
            )
        if self.longest == 0 and not self.echo:
            raise InvalidRequest("max_tokens 0 leaves nothing to say", param="max_tokens", hint="set echo")

    @property
    def longest(self) -> int:
        return DEFAULT_TOKENS if self.max_tokens is None else self.max_tokens

    @property
    def alternatives(self) -> int:
        return self.logprobs or 0

    @property
    def only_scores(self) -> bool:
        """Whether this asks how probable the prompt is: at most one token, which nobody reads, is written."""
        return bool(self.echo) and self.logprobs is not None and self.longest <= 1

    def prompts(self, renderer: Renderer) -> list[list[int]]:
        """The token ids of each prompt; an empty one begins a new document with the end token.

        Raises InvalidRequest for too many prompts and for what are no tokens.
        """
        prompt = "" if self.prompt is None else self.prompt
        found: list[list[int]]
        if isinstance(prompt, str):
            found = [renderer.tokens(clean(prompt))]
        elif prompt and all(isinstance(item, int) for item in prompt):
            found = [_checked([item for item in prompt if isinstance(item, int)], renderer)]
        else:
            found = [
                renderer.tokens(clean(item)) if isinstance(item, str) else _checked(item, renderer)
                for item in prompt
                if not isinstance(item, int)
            ]
        if not 1 <= len(found) * self.choices <= MOST_CHOICES:
            raise InvalidRequest(f"1 to {MOST_CHOICES} choices of all prompts together", param="prompt")
        return [ids or [renderer.end_id] for ids in found]


def _checked(token_ids: Sequence[int], renderer: Renderer) -> list[int]:
    if any(not 0 <= token < renderer.vocabulary for token in token_ids):
        raise InvalidRequest(f"token ids are 0 to {renderer.vocabulary - 1}", param="prompt")
    return list(token_ids)
