"""Comparisons as training examples: one prompt, its completions, and the judged pairs among them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tutelage.dialogue import Comparison, Message, Preference
from tutelage.rendering import Renderer


@dataclass(frozen=True, slots=True)
class PreferenceExample:
    """A rendered comparison. Each completion ends with the end token, at which it is scored."""

    prompt_ids: list[int]
    completions: list[list[int]]
    preferences: tuple[Preference, ...]
    source: str
    root: str

    @property
    def tokens(self) -> int:
        """Tokens of the tree: the prompt once, and every completion."""
        return len(self.prompt_ids) + sum(map(len, self.completions))


@dataclass(frozen=True, slots=True)
class PreferenceExamples:
    """Rendered comparisons, and how many were left out as too long or without any judged pair."""

    rendered: list[PreferenceExample]
    left_out: int


def render_comparisons(
    comparisons: Iterable[Comparison], renderer: Renderer, *, max_tokens: int
) -> PreferenceExamples:
    """Render every comparison whose prompt with its longest completion fits into `max_tokens`."""
    rendered: list[PreferenceExample] = []
    left_out = 0
    for comparison in comparisons:
        prompt = renderer.prompt(comparison.prompt)
        completions = [completion_ids(text, renderer) for text in comparison.candidates]
        if not comparison.preferences or len(prompt) + max(map(len, completions)) > max_tokens:
            left_out += 1
            continue
        root = next(message.content for message in comparison.prompt if message.role == "user")
        rendered.append(
            PreferenceExample(prompt, completions, comparison.preferences, comparison.source, root)
        )
    return PreferenceExamples(rendered, left_out)


def completion_ids(text: str, renderer: Renderer) -> list[int]:
    """An assistant's words and the end token, as they stand after a prompt."""
    return [*renderer.completion(text), renderer.end_id]


def dialogue_ids(messages: tuple[Message, ...], renderer: Renderer) -> tuple[list[int], list[int]]:
    """Prompt and completion of a dialogue that ends in an assistant's turn."""
    return renderer.prompt(messages[:-1]), completion_ids(messages[-1].content, renderer)
