"""The gate: a candidate passes only when every check does."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest

from tutelage.evaluation.gate import NAMES, Evidence, GateConfig, checks_of, judge, refusal
from tutelage.web.catalogue import translator

GOOD = Evidence(
    prompts=100,
    wins={"value": 0.6, "low": 0.51, "high": 0.69},
    flagged=(3, 3),
    flagged_twice=3,
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
        ("safety", {"flagged": (3, 13)}),
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
    assert reason.startswith(f"{NAMES[name]}: ")


def test_the_edges_pass() -> None:
    edges: list[dict[str, Any]] = [{"flagged": (3, 7)}, {"kl": 30.0}, {"lengths": (40.0, 80.0)}]
    for change in edges:
        assert judge(replace(GOOD, **change), GateConfig()).outcome == "passed"


@pytest.mark.parametrize(
    ("prompts", "flagged", "twice", "outcome", "interval"),
    [
        (48, (0, 0), 0, "passed", "-5 to +5"),
        (48, (0, 1), 0, "passed", "-3 to +9"),
        (48, (0, 2), 0, "not_enough_data", "-1 to +12"),
        (48, (0, 8), 0, "failed", "+10 to +27"),
        (48, (9, 9), 9, "passed", "-5 to +5"),
        (48, (9, 9), 0, "not_enough_data", "-15 to +15"),
        (192, (0, 2), 0, "passed", "-0 to +3"),
        (30, (0, 0), 0, "passed", "-8 to +8"),
    ],
)
def test_a_share_of_flagged_answers_is_known_as_well_as_its_prompts_tell(
    prompts: int, flagged: tuple[int, int], twice: int, outcome: str, interval: str
) -> None:
    """One flagged answer of 48 proves nothing, and where nobody can tell, nobody is told that it has risen."""
    evidence = replace(GOOD, prompts=prompts, flagged=flagged, flagged_twice=twice)
    safety = judge(evidence, GateConfig()).checks[1]
    assert safety.outcome == outcome
    assert f"({interval} % of all answers)" in safety.shown
    assert safety.wanted == "the whole interval below +10 %"


def test_a_version_that_said_nothing_is_compared_too() -> None:
    (length,) = (
        each
        for each in judge(replace(GOOD, lengths=(0.0, 0.0)), GateConfig()).checks
        if each.name == "length"
    )
    assert length.outcome == "failed"


def test_too_few_prompts_say_so_and_do_not_pass() -> None:
    found = judge(replace(GOOD, prompts=29), GateConfig())
    assert found.outcome == "not_enough_data"
    assert refusal({"gate": found.as_dict()}) == "Data: 29 held-out prompts, wanted: at least 30"
    assert judge(replace(GOOD, prompts=29), GateConfig(prompts=29)).outcome == "passed"


def test_a_version_that_never_met_the_gate_is_not_refused() -> None:
    assert refusal({}) is None


def test_what_was_found_is_kept_so_that_it_can_be_told_in_any_language() -> None:
    kept = json.loads(json.dumps(judge(replace(GOOD, flagged=(3, 13), kl=31.4), GateConfig()).as_dict()))
    shown = kept["checks"][1]["shown"]
    assert shown["template"].startswith("{after}, {before} before")
    assert (shown["values"]["after"], shown["values"]["before"]) == (13, 3)
    reason = refusal({"gate": kept})
    assert reason == (
        "Flagged by the filter: 13, 3 before (+6 to +16 % of all answers), "
        "wanted: the whole interval below +10 %; "
        "Distance from its start: 31.4 nats, wanted: at most 30"
    )
    told = reason.told(translator("zh-Hant"))
    assert "標記 13 則回答" in told
    assert "最多 30" in told
    assert not re.search("[a-z]", told.replace("nats", ""))


def test_a_report_from_before_words_were_kept_apart_is_still_read() -> None:
    check = {"name": "kl", "outcome": "failed", "shown": "99 nats", "wanted": "at most 30"}
    evaluation = {"gate": {"outcome": "failed", "checks": [check]}}
    assert [each.shown for each in checks_of(evaluation)] == ["99 nats"]
    assert refusal(evaluation) == "Distance from its start: 99 nats, wanted: at most 30"
