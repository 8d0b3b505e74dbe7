"""The gate: a candidate passes only when every check does."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tutelage.evaluation.gate import Evidence, GateConfig, judge, refusal

GOOD = Evidence(
    prompts=100,
    wins={"value": 0.6, "low": 0.51, "high": 0.69},
    flagged=(3, 3),
    lengths=(40.0, 44.0),
    kl=12.0,
)


def test_what_is_better_and_within_bounds_passes() -> None:
    found = judge(GOOD, GateConfig())
    assert found.outcome == "passed"
    assert [check.name for check in found.checks] == ["wins", "safety", "kl", "length"]
    assert refusal({"gate": found.as_dict()}) is None


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("wins", {"wins": {"value": 0.6, "low": 0.5, "high": 0.7}}),
        ("safety", {"flagged": (3, 6)}),
        ("kl", {"kl": 30.1}),
        ("kl", {"kl": float("nan")}),
        ("length", {"lengths": (40.0, 81.0)}),
        ("length", {"lengths": (40.0, 19.0)}),
    ],
)
def test_one_check_that_fails_fails_the_whole(name: str, change: dict[str, Any]) -> None:
    found = judge(replace(GOOD, **change), GateConfig())
    assert found.outcome == "failed"
    assert [check.name for check in found.checks if check.outcome != "passed"] == [name]
    reason = refusal({"gate": found.as_dict()})
    assert reason is not None
    assert reason.startswith(f"{name}: ")


def test_the_edges_pass() -> None:
    edges: list[dict[str, Any]] = [{"flagged": (3, 5)}, {"kl": 30.0}, {"lengths": (40.0, 80.0)}]
    for change in edges:
        assert judge(replace(GOOD, **change), GateConfig()).outcome == "passed"


def test_too_few_prompts_say_so_and_do_not_pass() -> None:
    found = judge(replace(GOOD, prompts=29), GateConfig())
    assert found.outcome == "not_enough_data"
    assert refusal({"gate": found.as_dict()}) == "data: 29 held-out prompts, wanted at least 30"
    assert judge(replace(GOOD, prompts=29), GateConfig(prompts=29)).outcome == "passed"


def test_a_version_that_never_met_the_gate_is_not_refused() -> None:
    assert refusal({}) is None
