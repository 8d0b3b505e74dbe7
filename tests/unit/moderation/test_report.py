from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
import pytest

from tutelage.moderation.categories import Scores
from tutelage.moderation.corpus import TRAINED, Example, means
from tutelage.moderation.policy import Policy
from tutelage.moderation.report import average_precision, bootstrap, evaluate, operating, wilson


def test_average_precision_by_hand() -> None:
    # Ranked: hit, miss, hit, miss. Precision 1 at recall 1/2, then 2/3 at recall 1.
    target = np.array([True, False, True, False])
    assert average_precision(target, np.array([0.9, 0.8, 0.7, 0.1])) == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)


def test_ties_count_as_one() -> None:
    target = np.array([True, False, False, False])
    assert average_precision(target, np.zeros(4)) == pytest.approx(0.25)
    assert average_precision(target[::-1], np.zeros(4)) == pytest.approx(0.25)


def test_average_precision_agrees_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(1)
    target = rng.random(500) < 0.2
    scores = np.round(rng.random(500) + 0.3 * target, 2)
    assert average_precision(target, scores) == pytest.approx(metrics.average_precision_score(target, scores))


def test_the_bootstrap_interval_holds_the_value_and_repeats_itself() -> None:
    rng = np.random.default_rng(2)
    target = rng.random(300) < 0.3
    scores = rng.random(300) + 0.5 * target
    low, high = bootstrap(target, scores)
    assert low < average_precision(target, scores) < high
    assert bootstrap(target, scores) == (low, high)


def test_an_operating_point_by_hand() -> None:
    point = operating(np.array([True, True, False, False, False]), np.array([0.9, 0.2, 0.5, 0.1, 0.1]), 0.5)
    assert (point.precision, point.recall, point.false_positive_rate) == (0.5, 0.5, pytest.approx(1 / 3))
    assert operating(np.array([True, False]), np.array([0.1, 0.1]), 0.5).precision is None


def test_wilson_intervals_are_the_published_ones() -> None:
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert wilson(5, 10) == pytest.approx((0.2366, 0.7634), abs=1e-4)


class Oracle:
    """Knows one word."""

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        return [dict.fromkeys(TRAINED, 0.0) | {"violence": 1.0 if "bang" in text else 0.0} for text in texts]


def test_a_report_tells_sets_apart_and_counts_ordinary_text(policy: Policy) -> None:
    harmful = Example("bang", means("violence"), "one", "test")
    missed = Example("quiet harm", means("violence"), "two", "test")
    ordinary = [
        Example(text, means(absent=TRAINED), "chat", "test") for text in ("bang goes the door", "hello")
    ]
    unknown = Example("a bang", means(absent=("hate",)), "two", "test")
    report = evaluate(Oracle(), [harmful, missed, unknown, *ordinary], policy)
    assert [(each.source, each.category, each.texts, each.positives) for each in report.rankings] == [
        ("all", "violence", 4, 2)
    ]
    block = report.rankings[0].block
    assert block is not None
    assert (block.recall, block.precision, block.false_positive_rate) == (0.5, 0.5, 0.5)
    assert {each.source: (each.texts, each.blocked) for each in report.ordinary} == {
        "chat": (2, 0.5),
        "all": (2, 0.5),
    }
    assert json.loads(json.dumps(report.as_dict()))["policy_version"] == policy.version
