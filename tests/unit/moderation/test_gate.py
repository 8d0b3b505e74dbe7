from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tutelage.errors import ConfigError, ModelError, Unavailable
from tutelage.moderation.breaker import Breaker
from tutelage.moderation.categories import Scores
from tutelage.moderation.gate import Gate, default_gate
from tutelage.moderation.policy import Policy

WORDS: dict[str, Scores] = {
    "hm": {"violence": 0.6},
    "bang": {"violence": 0.9, "hate": 0.4},
    "sad": {"self-harm/intent": 0.9},
    "难过": {"self-harm/intent": 0.9},
}


class Answers:
    """A classifier that gives one answer whatever it is asked, or raises it."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.calls = 0

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        self.calls += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Hangs:
    def __init__(self) -> None:
        self.release = threading.Event()

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        self.release.wait()
        return [{}]


@pytest.fixture
def gate(policy: Policy, keywords: Any) -> Gate:
    return Gate(policy, keywords(WORDS))


def test_states_follow_the_thresholds(gate: Gate) -> None:
    assert gate.check("hello", side="input").state == "ok"
    assert gate.check("hm", side="input").state == "warned"
    assert gate.check("bang", side="input").state == "blocked"
    assert gate.check("hm", side="output").state == "blocked"


def test_the_categories_of_a_blocked_text_are_those_that_block_it(gate: Gate) -> None:
    assert gate.check("bang", side="input").categories == ("violence",)
    assert gate.check("hm", side="input").categories == ("violence",)
    assert gate.check("hello", side="input").categories == ()


def test_every_verdict_names_its_policy(gate: Gate, policy: Policy) -> None:
    assert gate.check("hello", side="input").policy_version == policy.version


def test_who_may_hurt_themselves_is_shown_help_in_their_language_and_not_blocked(gate: Gate) -> None:
    english, chinese = gate.check("so sad", side="input"), gate.check("好难过", side="input")
    assert (english.state, english.help) == ("warned", "You are not alone.")
    assert (chinese.state, chinese.help) == ("warned", "你並不孤單。")
    assert gate.check("hello", side="input").help is None


def test_help_is_shown_even_where_something_else_blocks(gate: Gate) -> None:
    verdict = gate.check("sad bang", side="input")
    assert verdict.state == "blocked"
    assert verdict.help is not None


def test_what_was_said_before_reaches_the_classifier(policy: Policy, keywords: Any) -> None:
    classifier = keywords({})
    Gate(policy, classifier).check("yes", side="output", context="Shall I?")
    assert classifier.contexts == ["Shall I?"]


def test_a_verdict_survives_json(gate: Gate) -> None:
    verdict = gate.check("bang", side="input").as_dict()
    assert json.loads(json.dumps(verdict)) == verdict
    assert set(verdict) == {"state", "categories", "scores", "policy_version", "help"}


@pytest.mark.parametrize(
    "answer",
    [RuntimeError("down"), [], [{}, {}], [{"hate": float("nan")}], [{"hate": 1.5}], [{"hate": "high"}], None],
)
@pytest.mark.parametrize(("on_failure", "state"), [("open", "unchecked"), ("closed", "blocked")])
def test_a_failing_classifier_is_visible_and_follows_the_policy(
    make_policy: Callable[..., Policy], answer: Any, on_failure: str, state: str
) -> None:
    verdict = Gate(make_policy(on_failure=on_failure), Answers(answer)).check("hello", side="input")
    assert verdict.state == state
    assert (verdict.categories, verdict.scores) == ((), {})


def test_a_classifier_that_hangs_is_given_up_in_time(make_policy: Callable[..., Policy]) -> None:
    classifier = Hangs()
    started = time.monotonic()
    verdict = Gate(make_policy(timeout=0.05), classifier).check("hello", side="input")
    assert verdict.state == "unchecked"
    assert time.monotonic() - started < 0.9
    classifier.release.set()


def test_a_classifier_that_hangs_does_not_keep_the_program_from_ending(
    make_policy: Callable[..., Policy], tmp_path: Path
) -> None:
    make_policy(timeout=0.05)
    code = (
        "import sys, time; from pathlib import Path; from tutelage.moderation.gate import Gate; "
        "from tutelage.moderation.policy import Policy; "
        "classifier = type('Hangs', (), {'score': lambda *_: time.sleep(60)})(); "
        "print(Gate(Policy.load(Path(sys.argv[1])), classifier).check('hello', side='input').state)"
    )
    command = [sys.executable, "-c", code, str(tmp_path / "policy.toml")]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    assert ended.stdout == "unchecked\n"


def test_after_repeated_failures_the_classifier_is_left_alone(policy: Policy) -> None:
    classifier = Answers(RuntimeError("down"))
    gate = Gate(policy, classifier, breaker=Breaker(limit=2))
    states = [gate.check("hello", side="input").state for _ in range(5)]
    assert states == ["unchecked"] * 5
    assert classifier.calls == 2


def test_a_stricter_gate_has_the_same_classifier_and_rests_with_it(policy: Policy) -> None:
    classifier = Answers(RuntimeError("down"))
    gate = Gate(policy, classifier, breaker=Breaker(limit=2))
    for each in (gate, gate.strict("input"), gate.strict("output")):
        assert each.check("hello", side="input").state == "unchecked"
    assert classifier.calls == 2
    assert gate.strict() is gate


def test_many_texts_are_scored_at_once_or_not_at_all(gate: Gate, policy: Policy) -> None:
    assert [scores["violence"] for scores in gate.scores(["hm", "hello"])] == [0.6, 0.0]
    with pytest.raises(Unavailable):
        Gate(policy, Answers([{}])).scores(["one", "two"])


def test_an_installation_uses_its_own_policy_and_weights(tmp_path: Path) -> None:
    assert default_gate(tmp_path).policy == Policy.load()
    (tmp_path / "policy.toml").write_text("name = 1", encoding="utf-8")
    with pytest.raises(ConfigError):
        default_gate(tmp_path)
    (tmp_path / "policy.toml").unlink()
    (tmp_path / "filter.npz").write_bytes(b"not weights")
    with pytest.raises(ModelError):
        default_gate(tmp_path)
