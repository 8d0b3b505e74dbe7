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


def render_prompts(dialogues: Iterable[Dialogue], renderer: Renderer, *, max_tokens: int) -> list[Prompt]:
    """Render each distinct prompt of at most `max_tokens` tokens; longer ones are left out, never cut."""
    seen: set[tuple[int, ...]] = set()
    prompts: list[Prompt] = []
    for dialogue in dialogues:
        token_ids = renderer.prompt(dialogue.messages)
        if len(token_ids) <= max_tokens and tuple(token_ids) not in seen:
            seen.add(tuple(token_ids))
            prompts.append(Prompt(token_ids, dialogue.messages))
    return prompts
