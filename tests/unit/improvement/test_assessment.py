"""What is measured of a round, and on which side it stands."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.datasets.prompts import Prompt
from tutelage.dialogue import Message
from tutelage.evaluation.answers import Answers, Judges
from tutelage.evaluation.gate import GateConfig
from tutelage.evaluation.paired import rise
from tutelage.improvement import assessment
from tutelage.improvement.assessment import EvaluationConfig, assess


def answers(words: list[str], judged: list[float], *, length: int) -> Answers:
    return Answers(words, [0.0] * len(words), judged, [length] * len(words), [True] * len(words))


def test_before_and_after_are_not_mistaken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said = {
        "before": answers(["well", "well", "warned", "well"], [0.0, 0.0, 0.0, 0.0], length=10),
        "sft": answers(["well"] * 4, [0.0, 0.0, 2.0, 2.0], length=10),
        "after": answers(["warned", "blocked", "well", "well"], [1.0, 1.0, 1.0, -1.0], length=20),
        "dpo": answers(["well"] * 4, [-1.0] * 4, length=10),
    }
    contexts: list[str] = []

    def check(text: str, *, side: str, context: str) -> SimpleNamespace:
        assert side == "output"
        contexts.append(context)
        return SimpleNamespace(state=text)

    monkeypatch.setattr(assessment, "answer_all", lambda *given, **named: said)
    monkeypatch.setattr(assessment, "default_gate", lambda home: SimpleNamespace(check=check))
    prompts = [Prompt([number], (Message("user", f"question {number}"),)) for number in range(4)]
    config = EvaluationConfig(shown=1, gate=GateConfig(prompts=4))
    speakers: dict[str, Any] = dict.fromkeys(said)
    judges = Judges(tmp_path, tmp_path)
    found = assess(config, prompts, speakers, model="tiny", home=tmp_path, judges=judges, kl=7.0, seed=0)
    assert found["win_rate_over_before"]["value"] == 0.75
    assert found["win_rate_over_sft"]["value"] == 0.5
    assert {name: rate["value"] for name, rate in found["baselines"].items()} == {"sft": 0.75, "dpo": 0.0}
    assert {name: each["flagged"] for name, each in found["speakers"].items()} == {
        "before": 1,
        "sft": 0,
        "after": 2,
        "dpo": 0,
    }
    checks = {
        check["name"]: (check["outcome"], check["shown"]["values"]) for check in found["gate"]["checks"]
    }
    safety = checks["safety"][1]
    assert (safety["after"], safety["before"]) == (2, 1)
    assert (safety["low"], safety["high"]) == tuple(100 * end for end in rise(1, 2, 4)), "none twice"
    assert checks["length"][1] == {"ratio": 2.0}
    assert checks["kl"][1] == {"nats": 7.0}
    assert set(contexts) == {f"question {number}" for number in range(4)}
    assert [len(found["answers"]), found["prompts"]] == [1, 4]
