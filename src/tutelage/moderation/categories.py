"""The thirteen categories of OpenAI's moderation endpoint."""

from __future__ import annotations

from typing import Literal, get_args

Category = Literal[
    "harassment",
    "harassment/threatening",
    "hate",
    "hate/threatening",
    "illicit",
    "illicit/violent",
    "self-harm",
    "self-harm/intent",
    "self-harm/instructions",
    "sexual",
    "sexual/minors",
    "violence",
    "violence/graphic",
]
CATEGORIES: tuple[Category, ...] = get_args(Category)

Scores = dict[str, float]
"""Category to probability. A category that is not there was not judged."""
