"""Small data and one thread: the model `tiny` trains in a second or two."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tutelage.dialogue import Comparison, Dialogue, Message

WORDS = [
    "cat",
    "dog",
    "owl",
    "hen",
    "fox",
    "bee",
    "ant",
    "cow",
    "pig",
    "rat",
    "bat",
    "emu",
    "elk",
    "eel",
    "ape",
    "yak",
]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="session")
def demonstrations() -> list[Dialogue]:
    return [
        Dialogue((Message("user", f"say {word}"), Message("assistant", f"{word}!" * (1 + number % 3))))
        for number, word in enumerate(WORDS)
    ]


@pytest.fixture(scope="session")
def comparisons() -> list[Comparison]:
    """Short answers are better than long ones; the two longest are as good as each other."""
    return [
        Comparison.from_ranking(
            (Message("user", f"say {word}"),),
            ["a" * 9, "b", "c" * 10, "ddd"],
            [[1], [3], [0, 2]],
            source="made",
        )
        for word in WORDS
    ]


@pytest.fixture(scope="session")
def prompts(demonstrations: list[Dialogue]) -> list[Dialogue]:
    return [Dialogue(dialogue.messages[:1]) for dialogue in demonstrations]
