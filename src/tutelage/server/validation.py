"""What is wrong with a request that does not fit its description: where, how it is called, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tutelage.errors import Sentence

CODES = {"missing": "missing_required_parameter", "extra_forbidden": "unknown_parameter"}
LONGEST_PARAM = 200

Place = tuple[str | int, ...]


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong. `param` is its place as OpenAI writes it: `messages[0].content`."""

    param: str | None
    code: str
    said: Sentence


def first_problem(problems: Sequence[Mapping[str, Any]], body: object) -> Problem:
    """The first of pydantic's errors, told without what was sent.

    Where a value may be of several kinds, there is an error for each of them: what counts is the one that got deepest.
    """
    places = [_place(problem, body) for problem in problems]
    within = [index for index, place in enumerate(places) if place[: len(places[0])] == places[0]]
    deepest = max(within, key=lambda index: len(places[index]))
    problem, param = problems[deepest], _spelled(places[deepest])
    said = Sentence("{field}: {problem}", field=param or Sentence("the body"), problem=_words(problem))
    return Problem(param, _code(problem["type"]), said)


def _place(problem: Mapping[str, Any], body: object) -> Place:
    """Where in the request. pydantic's own account also names which kind of value it tried: that is no place."""
    kind, *parts = problem["loc"]
    if kind != "body" or not isinstance(body, dict):
        return tuple(parts)
    found: list[str | int] = []
    value: object = body
    for index, part in enumerate(parts):
        if (isinstance(value, dict) and part in value) or (isinstance(value, list) and isinstance(part, int)):
            value = value[part]
            found.append(part)
        elif problem["type"] == "missing" and index == len(parts) - 1:
            found.append(part)
    return tuple(found)


def _spelled(place: Place) -> str | None:
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")[:LONGEST_PARAM] or None


def _code(kind: str) -> str:
    return CODES.get(kind, "invalid_type" if kind.endswith("_type") else "invalid_value")


def _words(problem: Mapping[str, Any]) -> Sentence:
    """What pydantic says of a value, with its bounds as values of the sentence."""
    template, bounds = problem["msg"], {}
    for name, bound in problem.get("ctx", {}).items() if "{" not in template else ():
        shown = f"{bound:.15g}" if isinstance(bound, int | float) else ""
        if shown and shown in template:
            template, bounds[name] = template.replace(shown, f"{{{name}}}", 1), shown
    return Sentence(template, **bounds)
