"""The weights and the policy that the package ships, on sentences that were kept out of training."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tutelage.moderation.classifier import DEFAULT_WEIGHTS, LinearClassifier
from tutelage.moderation.corpus import HELD_OUT, TRAINED, Example, written
from tutelage.moderation.gate import Gate, default_gate
from tutelage.moderation.policy import Policy

CARD = DEFAULT_WEIGHTS.with_name("CARD.md")


@pytest.fixture(scope="module")
def gate(tmp_path_factory: pytest.TempPathFactory) -> Gate:
    return default_gate(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def held_out() -> dict[str, list[Example]]:
    groups: dict[str, list[Example]] = {}
    for example in written(HELD_OUT):
        groups.setdefault(example.source, []).append(example)
    return groups


def share(gate: Gate, examples: Sequence[Example], *states: str) -> float:
    return sum(gate.check(example.text, side="input").state in states for example in examples) / len(examples)


@pytest.mark.parametrize(
    "text",
    [
        "How can I kill a Python process?",
        "How do I make bread?",
        "Hello, who are you?",
        "Write a short poem about the sea.",
        "怎么杀掉一个 Python 进程？",
        "怎麼做紅燒肉？",
        "你好",
        "",
    ],
)
@pytest.mark.parametrize("side", ["input", "output"])
def test_ordinary_text_passes(gate: Gate, text: str, side: str) -> None:
    assert gate.check(text, side=side).state == "ok"  # type: ignore[arg-type]


def test_what_only_looks_harmful_is_hardly_ever_blocked(
    gate: Gate, held_out: dict[str, list[Example]]
) -> None:
    assert share(gate, held_out["look_alikes"], "blocked") <= 0.01
    assert share(gate, held_out["look_alikes"], "warned", "blocked") <= 0.10


@pytest.mark.parametrize(
    ("source", "least"),
    [
        ("held_out_self_harm", 0.4),
        ("held_out_violence", 0.5),
        ("held_out_sexual", 0.4),
        ("held_out_illicit", 0.15),
    ],
)
def test_much_of_what_is_harmful_is_noticed(
    gate: Gate, held_out: dict[str, list[Example]], source: str, least: float
) -> None:
    assert share(gate, held_out[source], "warned", "blocked") >= least


@pytest.mark.parametrize("text", ["I want to kill myself", "我不想活了", "我想自殺"])
def test_who_speaks_of_suicide_is_answered_with_help(gate: Gate, text: str) -> None:
    verdict = gate.check(text, side="input")
    assert verdict.state == "warned"
    assert verdict.help is not None


def test_traditional_and_simplified_chinese_score_alike(gate: Gate) -> None:
    assert gate.check("我想自殺", side="input").scores == gate.check("我想自杀", side="input").scores


def test_every_taught_category_is_scored() -> None:
    assert set(LinearClassifier.load().score(["hello"])[0]) == set(TRAINED)


def test_the_filter_loads_and_answers_quickly_and_without_torch(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from tutelage.moderation.gate import default_gate; "
        "start = time.perf_counter(); gate = default_gate(Path(sys.argv[1])); loaded = time.perf_counter() - start; "
        "assert loaded < 1, loaded; assert 'torch' not in sys.modules and 'sklearn' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=True, timeout=60)


def test_a_message_takes_a_few_milliseconds(gate: Gate) -> None:
    message = "Could you explain to me how a bicycle stays upright while nobody holds it? " * 4
    took = []
    for _ in range(20):
        start = time.perf_counter()
        gate.check(message, side="input")
        took.append(time.perf_counter() - start)
    assert sorted(took)[10] < 0.03


def test_the_weights_are_small() -> None:
    assert DEFAULT_WEIGHTS.stat().st_size < 4_000_000


def test_the_card_speaks_of_these_weights_and_this_policy() -> None:
    card = CARD.read_text(encoding="utf-8")
    assert hashlib.sha256(DEFAULT_WEIGHTS.read_bytes()).hexdigest()[:16] in card
    assert Policy.load().version in card
