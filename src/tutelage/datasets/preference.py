"""Comparisons as training examples: one prompt, its completions, and the judged pairs among them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from tutelage.dialogue import Comparison, Message, Preference
from tutelage.rendering import Renderer

Ties = Literal["soft", "drop"]
"""What becomes of two candidates judged as equal: a target of 1/2, or nothing."""


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """A rendered comparison. Each completion ends with the end token, at which it is scored."""

    prompt_ids: list[int]
    completions: list[list[int]]
    preferences: tuple[Preference, ...]
    source: str
    root: str
    weight: float = 1.0
    author: str | None = None

    @property
    def tokens(self) -> int:
        """Tokens of the tree: the prompt once, and every completion."""
        return len(self.prompt_ids) + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class PreferenceExamples:
    """Rendered comparisons, and what was left out of them, counted by reason.

    too_long: comparisons whose prompt with a completion has too many tokens; nothing is ever cut.
    equal_texts: pairs of two candidates with the same words.
    ties: pairs judged as equal, where these are dropped.
    unjudged: comparisons without any pair, or left without one.
    """

    rendered: list[PreferenceExample]
    left_out: Counter[str]


def render_comparisons(
    comparisons: Iterable[Comparison], renderer: Renderer, *, max_tokens: int, ties: Ties = "soft"
) -> PreferenceExamples:
    """Render every comparison that has a judged pair and whose longest dialogue fits into `max_tokens`."""
    rendered: list[PreferenceExample] = []
    left_out: Counter[str] = Counter()
    for comparison in comparisons:
        pairs = _usable_pairs(comparison, ties, left_out)
        if not pairs:
            left_out["unjudged"] += 1
            continue
        prompt = renderer.prompt(comparison.prompt)
        completions = [completion_ids(text, renderer) for text in comparison.candidates]
        if len(prompt) + max(map(len, completions)) > max_tokens:
            left_out["too_long"] += 1
            continue
        root = next(message.content for message in comparison.prompt if message.role == "user")
        rendered.append(
            PreferenceExample(
                prompt, completions, pairs, comparison.source, root, comparison.weight, comparison.author
            )
        )
    return PreferenceExamples(rendered, left_out)


def _usable_pairs(comparison: Comparison, ties: Ties, left_out: Counter[str]) -> tuple[Preference, ...]:
    """The pairs that can teach something; the others are counted."""
    texts = comparison.candidates
    different = [pair for pair in comparison.preferences if texts[pair.better] != texts[pair.worse]]
    left_out["equal_texts"] += len(comparison.preferences) - len(different)
    kept = [pair for pair in different if ties == "soft" or not pair.tie]
    left_out["ties"] += len(different) - len(kept)
    return tuple(kept)


def completion_ids(text: str, renderer: Renderer) -> list[int]:
    """An assistant's words and the end token, as they stand after a prompt."""
    return [*renderer.completion(text), renderer.end_id]


def dialogue_ids(messages: tuple[Message, ...], renderer: Renderer) -> tuple[list[int], list[int]]:
    """Prompt and completion of a dialogue that ends in an assistant's turn."""
    return renderer.prompt(messages[:-1]), completion_ids(messages[-1].content, renderer)
