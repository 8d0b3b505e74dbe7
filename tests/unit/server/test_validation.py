from __future__ import annotations

from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tutelage.server.validation import Problem, first_problem


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    text: str


class Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    items: str | list[Part] | list[list[int]] = ""
    named: dict[str, float] = Field(default_factory=dict)
    count: int = Field(0, le=9)


def problem_of(body: Any, kind: str = "body") -> Problem:
    with pytest.raises(ValidationError) as caught:
        Body.model_validate(body)
    return first_problem([{**each, "loc": (kind, *each["loc"])} for each in caught.value.errors()], body)


@pytest.mark.parametrize(
    ("body", "param", "code", "words"),
    [
        ({"items": 7}, "items", "invalid_type", "items: Input should be a valid string"),
        (
            {"items": [{"text": 7}]},
            "items[0].text",
            "invalid_type",
            "items[0].text: Input should be a valid string",
        ),
        ({"items": [{"text": "x"}, {}]}, "items[1].text", "missing_required_parameter", None),
        ({"items": [{"text": "x", "odd": 1}]}, "items[0].odd", "unknown_parameter", None),
        ({"items": [[1], [2, "x"]]}, "items[1][1]", "invalid_type", None),
        ({"named": {"a.b": "x"}}, "named.a.b", "invalid_type", None),
        ({"count": 10}, "count", "invalid_value", "count: Input should be less than or equal to 9"),
        ({"odd": 1, "count": 10}, "count", "invalid_value", None),
        ({"items": 7, "count": 7.5}, "items", "invalid_type", None),
    ],
)
def test_a_problem_is_told_by_its_place(body: Any, param: str, code: str, words: str | None) -> None:
    problem = problem_of(body)
    assert (problem.param, problem.code) == (param, code)
    assert words is None or problem.said == words


def test_a_place_that_is_long_is_cut_and_one_outside_the_body_is_told_as_it_is() -> None:
    assert len(problem_of({"a" * 500: 1}).param or "") == 200
    assert problem_of({"count": 10}, kind="query").param == "count"
