"""The content filter around an answer, for clients that ask for its scores."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from tutelage.moderation.gate import Gate, Verdict
from tutelage.moderation.openai import openai_result
from tutelage.moderation.policy import Side


def filter_name(gate: Gate) -> str:
    """The filter's name: which policy judges."""
    return f"tutelage-moderation-{gate.policy.version}"


def moderation(gate: Gate, asked: Verdict, answers: Iterable[Verdict | None]) -> dict[str, Any]:
    """The `moderation` of an answer. `gate` is the server's own: its policy says what is flagged."""
    return {
        "input": _results(gate, [asked], "input"),
        "output": _results(gate, [each for each in answers if each is not None], "output"),
    }


def _results(gate: Gate, verdicts: list[Verdict], side: Side) -> dict[str, Any]:
    if any(not verdict.scores for verdict in verdicts):
        return {"type": "error", "code": "unavailable", "message": "the content filter did not answer"}
    model = filter_name(gate)
    results = [
        {"type": "moderation_result", "model": model, **openai_result(verdict.scores, gate.policy, side=side)}
        for verdict in verdicts
    ]
    return {"type": "moderation_results", "model": model, "results": results}
