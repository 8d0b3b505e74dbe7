"""Demonstrations as training examples: rendered, masked by turn, mixed by source."""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from tutelage.dialogue import Dialogue, Message
from tutelage.errors import ConfigError, Sentence
from tutelage.rendering import Rendered, Renderer


@dataclass(frozen=True, slots=True)
class Examples:
    """Rendered dialogues, and how many were shortened by whole turns or left out as too long."""

    rendered: list[Rendered]
    shortened: int
    left_out: int


def render_examples(dialogues: Iterable[Dialogue], renderer: Renderer, *, max_tokens: int) -> Examples:
    """Render every dialogue that fits into `max_tokens`; a longer one loses its last turns, never half a turn."""
    rendered: list[Rendered] = []
    shortened = left_out = 0
    for dialogue in dialogues:
        example, turns = _longest_fit(dialogue.messages, renderer, max_tokens)
        if example is None:
            left_out += 1
            continue
        shortened += turns < len(dialogue.messages)
        rendered.append(example)
    return Examples(rendered, shortened, left_out)


def _longest_fit(
    messages: Sequence[Message], renderer: Renderer, max_tokens: int
) -> tuple[Rendered | None, int]:
    """The rendered turns up to the last answer that fits, and how many turns these are; found by halving."""
    ends = [turns for turns in range(2, len(messages) + 1) if messages[turns - 1].role == "assistant"]
    best: tuple[Rendered | None, int] = None, 0
    low, high, middle = 0, len(ends), len(ends) - 1  # most fit whole
    while low < high:
        example = renderer.example(messages[: ends[middle]])
        if len(example.token_ids) <= max_tokens:
            best, low = (example, ends[middle]), middle + 1
        else:
            high = middle
        middle = (low + high) // 2
    return best


def mix(dialogues: Iterable[Dialogue], shares: Mapping[str, float], *, seed: int) -> list[Dialogue]:
    """Choose dialogues so that each source has its share; sources without a share are left out.

    As many are taken as the scarcest source allows. Without shares, every dialogue is taken.
    Raises ConfigError when a source has no dialogue.
    """
    if not shares:
        return list(dialogues)
    by_source: dict[str, list[Dialogue]] = defaultdict(list)
    for dialogue in dialogues:
        by_source[dialogue.source].append(dialogue)
    total = sum(shares.values())
    for source in shares:
        if not by_source[source]:
            known = ", ".join(
                f"{name} ({n})" for name, n in Counter({k: len(v) for k, v in by_source.items()}).items() if n
            )
            raise ConfigError(
                Sentence("the mix names the source {source!r}, which has no demonstration", source=source),
                hint=Sentence("sources: {known}", known=known),
            )
    size = min(len(by_source[source]) * total / share for source, share in shares.items())
    generator = random.Random(seed)
    chosen: list[Dialogue] = []
    for source, share in shares.items():
        chosen += generator.sample(by_source[source], max(1, int(size * share / total)))
    return chosen
