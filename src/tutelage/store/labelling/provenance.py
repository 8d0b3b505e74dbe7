"""Where a trainer's text came from: written by hand, suggested by a model, or a suggestion that was edited."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

MAX_COMPARED = 4000


def provenance(content: str, suggestions: Sequence[str], taken: str | None) -> dict[str, Any]:
    """Where a text came from. `edit_ratio` is 0 for a suggestion as it came and 1 for one with nothing left."""
    text = content.strip()
    if taken is None or not suggestions:
        return {"kind": "human", "suggestions": list(suggestions), "taken": None, "edit_ratio": None}
    kind = "suggested" if text == taken.strip() else "edited"
    ratio = 0.0 if kind == "suggested" else 1 - _likeness(taken.strip(), text)
    return {"kind": kind, "suggestions": list(suggestions), "taken": taken, "edit_ratio": round(ratio, 3)}


def _likeness(before: str, after: str) -> float:
    """From 0 to 1, by words: comparing letters of long texts takes seconds."""
    return SequenceMatcher(
        None, before.split()[:MAX_COMPARED], after.split()[:MAX_COMPARED], autojunk=False
    ).ratio()
