"""Scores in the form of OpenAI's moderation endpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tutelage.moderation.categories import CATEGORIES
from tutelage.moderation.policy import Policy, Side


def openai_result(scores: Mapping[str, float], policy: Policy, *, side: Side = "input") -> dict[str, Any]:
    """One of the `results` of /v1/moderations.

    A category is true from its warning threshold on. One that was not judged scores 0, and names no input type it
    was applied to.
    """
    warned = policy.warned(scores, side)
    return {
        "flagged": bool(warned),
        "categories": {name: name in warned for name in CATEGORIES},
        "category_scores": {name: scores.get(name, 0.0) for name in CATEGORIES},
        "category_applied_input_types": {name: ["text"] if name in scores else [] for name in CATEGORIES},
    }
