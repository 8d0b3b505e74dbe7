"""Tokens as clients see them: text, bytes, log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tutelage.rendering import Renderer
from tutelage.server.completion import SpokenToken

LOWEST = -9999.0
"""Stands for the log-probability of what cannot be: JSON has no infinity."""


def chat_logprobs(renderer: Renderer, tokens: Sequence[SpokenToken]) -> dict[str, Any]:
    """The `logprobs` of a choice of `/v1/chat/completions`."""
    return {"content": [_entry(renderer, token) for token in tokens], "refusal": None}


def token_text(renderer: Renderer, token_id: int) -> str:
    """The text of a token; a part of a character is spelled as its bytes: `\\xe2\\x98`."""
    found = renderer.token_bytes(token_id)
    try:
        return found.decode()
    except UnicodeDecodeError:
        return "".join(f"\\x{byte:02x}" for byte in found)


def finite(logprob: float) -> float:
    return max(logprob, LOWEST)


def _entry(renderer: Renderer, token: SpokenToken) -> dict[str, Any]:
    top = [_alternative(renderer, *each) for each in token.top]
    return {**_alternative(renderer, token.token_id, token.logprob), "top_logprobs": top}


def _alternative(renderer: Renderer, token_id: int, logprob: float) -> dict[str, Any]:
    return {
        "token": token_text(renderer, token_id),
        "logprob": finite(logprob),
        "bytes": list(renderer.token_bytes(token_id)),
    }
