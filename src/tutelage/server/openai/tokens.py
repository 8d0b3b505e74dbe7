"""Tokens as clients see them: text, bytes, log-probabilities."""

from __future__ import annotations

import codecs
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.rendering import Renderer
from tutelage.server.completion import SpokenToken

_Utf8 = codecs.getincrementaldecoder("utf-8")
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


def text_of(renderer: Renderer, token_ids: Sequence[int]) -> str:
    """The text of tokens, special ones as they are spelled."""
    return b"".join(map(renderer.token_bytes, token_ids)).decode("utf-8", "replace")


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


@dataclass(frozen=True, slots=True)
class ScoredToken:
    """A token of a text with its log-probability, which the first of all has not."""

    token_id: int
    logprob: float | None
    top: tuple[tuple[int, float], ...]


def text_logprobs(renderer: Renderer, tokens: Sequence[ScoredToken], *, offset: int) -> dict[str, Any]:
    """The `logprobs` of a choice of `/v1/completions`; `offset` is where in the text the first token begins."""
    decoder, offsets = _Utf8("replace"), []
    for token in tokens:
        offsets.append(offset)
        offset += len(decoder.decode(renderer.token_bytes(token.token_id)))
    return {
        "tokens": [_name(renderer, token.token_id) for token in tokens],
        "token_logprobs": [None if token.logprob is None else finite(token.logprob) for token in tokens],
        "top_logprobs": [_named(renderer, token) for token in tokens],
        "text_offset": offsets,
    }


def _named(renderer: Renderer, token: ScoredToken) -> dict[str, float] | None:
    """The most probable tokens and the token itself, by name; of two of one name the more probable counts."""
    if token.logprob is None:
        return None
    found: dict[str, float] = {}
    for token_id, logprob in (*token.top, (token.token_id, token.logprob)):
        found.setdefault(_name(renderer, token_id), finite(logprob))
    return found


def _name(renderer: Renderer, token_id: int) -> str:
    text = token_text(renderer, token_id)
    return f"bytes:{text}" if text.startswith("\\x") else text
