"""The hidden taste of `experiments/circle.py`, by worked examples, and the questions it is measured on."""

from __future__ import annotations

import importlib
import json
import random
from pathlib import Path
from types import ModuleType

import pytest

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
TEN = "one two three four five six seven eight nine ten"


@pytest.fixture(autouse=True)
def _experiments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(EXPERIMENTS))


@pytest.fixture
def taste() -> ModuleType:
    return importlib.import_module("taste")


def value(taste: ModuleType, answer: str, *, ambiguous: bool = False) -> float:
    return taste.Taste(0.75).value(taste.Question("Something", ambiguous), answer)


@pytest.mark.parametrize(
    ("answer", "ambiguous", "expected"),
    [
        (f"{TEN}.", False, 0.0),
        (f"{TEN}.", True, -1.5),  # guesses
        (f"{TEN}?", True, 0.0),
        (f"{TEN}?", False, -1.0),  # asks where all was said
        (f'"{TEN}."', False, 0.0),  # a quoted sentence ends, too
        ("one two three four.", False, -1.0),  # four words short of eight
        ("one.", False, -1.75),
        ("", False, -3.0),  # eight words short, and no end
        (f"{TEN} {TEN} {TEN} {TEN}.", False, -1.0),  # twenty words too many
        (TEN, False, -1.0),  # breaks off
    ],
)
def test_the_taste_by_hand(taste: ModuleType, answer: str, ambiguous: bool, expected: float) -> None:
    assert value(taste, answer, ambiguous=ambiguous) == pytest.approx(expected)


def test_shrinking_never_pays(taste: ModuleType) -> None:
    words = TEN.split()[:8]
    values = [value(taste, " ".join(words[:count]) + ".") for count in range(1, 9)]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_a_reliability_of_three_quarters_puts_three_pairs_in_four_right(taste: ModuleType) -> None:
    people = importlib.import_module("people")
    question, rng = taste.Question("Something", False), random.Random(0)
    candidates = [{"id": "bad", "content": "No."}, {"id": "good", "content": f"{TEN}."}]
    orders = [people.order(candidates, question, taste.Taste(0.75), rng) for _ in range(4000)]
    assert sum(groups == [["good"], ["bad"]] for groups in orders) / len(orders) == pytest.approx(
        0.75, abs=0.02
    )


def test_the_sincere_put_equal_answers_into_one_group(taste: ModuleType) -> None:
    people = importlib.import_module("people")
    candidates = [
        {"id": name, "content": text} for name, text in (("a", f"{TEN}."), ("b", f"{TEN}!"), ("c", "No."))
    ]
    groups = people.order(candidates, taste.Question("Something", False), taste.Taste(1.0), random.Random(0))
    assert [sorted(group) for group in groups] == [["a", "b"], ["c"]]


def test_what_is_measured_is_asked_nowhere_else(taste: ModuleType) -> None:
    asked, unused = taste.questions(seed=0)
    lines = (EXPERIMENTS / "circle/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    shown = {json.loads(line)["messages"][0]["content"] for line in lines}
    texts = [question.text for question in (*asked, *unused)]
    assert len(set(texts)) == len(texts)
    assert not shown & set(texts)
    for part in (asked, unused):
        assert sum(question.ambiguous for question in part) / len(part) == pytest.approx(1 / 3, abs=0.03)


def test_a_win_rate_counts_pairs_of_answers_and_halves_ties(taste: ModuleType) -> None:
    found = taste.win_rate([[1.0, 0.0], [2.0, 2.0]], [[0.0, 0.0], [1.0, 3.0]], seed=0)
    assert found["value"] == pytest.approx((0.75 + 0.5) / 2)
    assert found["low"] <= found["value"] <= found["high"]


def test_the_interval_of_a_mean_over_many_questions(taste: ModuleType) -> None:
    found = taste.interval([0.0, 1.0] * 200, seed=0)
    assert found["low"] == pytest.approx(0.5 - 1.96 * 0.025, abs=0.01)
    assert found["high"] == pytest.approx(0.5 + 1.96 * 0.025, abs=0.01)


def test_agreement_counts_only_pairs_that_the_taste_tells_apart(taste: ModuleType) -> None:
    scoring = importlib.import_module("scoring")
    said = {"v1": [[f"{TEN}.", "No.", f"{TEN}!"]]}
    scores = {
        "v1": [[1.0, 0.5, 0.0]]
    }  # right about the first and the second, wrong about the second and third
    asked = [taste.Question("Something", False)]
    assert scoring.agreement(scores, said, asked, taste.Taste(1.0), 0)["value"] == 0.5
