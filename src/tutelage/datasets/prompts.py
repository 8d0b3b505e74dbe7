"""Prompts for rollouts: dialogues that end in a user's message."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tutelage.dialogue import Dialogue, Message
from tutelage.rendering import Renderer


@dataclass(frozen=True, slots=True)
class Prompt:
    """A rendered prompt and the messages it was made of."""

    token_ids: list[int]
    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Prompts:
    """Rendered prompts, and how many were left out as too long."""

    rendered: list[Prompt]
    left_out: int


def render_prompts(dialogues: Iterable[Dialogue], renderer: Renderer, *, max_tokens: int) -> Prompts:
    """Render each distinct prompt of at most `max_tokens` tokens; longer ones are left out, never cut."""
    distinct: dict[tuple[int, ...], Prompt] = {}
    for dialogue in dialogues:
        token_ids = renderer.prompt(dialogue.messages)
        distinct.setdefault(tuple(token_ids), Prompt(token_ids, dialogue.messages))
    fitting = [prompt for prompt in distinct.values() if len(prompt.token_ids) <= max_tokens]
    return Prompts(fitting, len(distinct) - len(fitting))
