"""Classifiers that do as they are told, and a policy with round numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tutelage.moderation.categories import Scores
from tutelage.moderation.policy import Policy

POLICY = """
name = "test"
on_failure = "{on_failure}"
timeout_seconds = {timeout}
[help]
english = "You are not alone."
chinese = "你並不孤單。"
[input]
violence = {{ warn = 0.5, block = 0.8 }}
hate = {{ warn = 0.3, block = 0.9 }}
"self-harm/intent" = {{ warn = 0.5 }}
[output]
violence = {{ warn = 0.2, block = 0.4 }}
"""


class KeywordClassifier:
    """Scores a text by the words in it, and counts the characters it was shown."""

    def __init__(self, words: dict[str, Scores]) -> None:
        self.words = words
        self.seen = 0
        self.contexts: list[str] = []

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        self.seen += sum(map(len, texts))
        self.contexts.extend(contexts or ())
        return [self._one(text) for text in texts]

    def _one(self, text: str) -> Scores:
        scores: Scores = {"violence": 0.0}
        for word, values in self.words.items():
            if word in text:
                scores |= values
        return scores


@pytest.fixture
def make_policy(tmp_path: Path) -> Callable[..., Policy]:
    def make(*, on_failure: str = "open", timeout: float = 1.0) -> Policy:
        path = tmp_path / "policy.toml"
        path.write_text(POLICY.format(on_failure=on_failure, timeout=timeout), encoding="utf-8")
        return Policy.load(path)

    return make


@pytest.fixture
def policy(make_policy: Callable[..., Policy]) -> Policy:
    return make_policy()


@pytest.fixture
def keywords() -> type[KeywordClassifier]:
    return KeywordClassifier
