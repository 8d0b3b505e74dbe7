from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tutelage.errors import ModelError
from tutelage.moderation.classifier import LinearClassifier, row_sums
from tutelage.moderation.features import WINDOW, Rows, hashed


@pytest.fixture
def classifier() -> LinearClassifier:
    """Two categories over 1,024 buckets; the first one finds the word `bad`."""
    weights = np.zeros((1 << 10, 2), dtype=np.int8)
    weights[hashed(["bad"], bits=10).indices, 0] = 100
    ones = np.ones(2, dtype=np.float32)
    return LinearClassifier(
        ("hate", "violence"), weights, 0.05 * ones, np.array([-2.0, -3.0], dtype=np.float32), ones, 0 * ones
    )


def test_weighted_sums_by_hand() -> None:
    weights = np.tile(np.array([1, 10], dtype=np.int8), (32, 1))
    rows = Rows(np.array([*range(25), 3, 4], dtype=np.uint32), np.array([0, 25, 25, 27]))
    assert row_sums(weights, rows).tolist() == [[25 / 5, 250 / 5], [0.0, 0.0], [2 / 4, 20 / 4]]


def test_a_score_is_the_calibrated_logistic_of_the_sum(classifier: LinearClassifier) -> None:
    size = len(hashed(["bad"], bits=10).indices)
    assert size < 16
    logit = 100 * 0.05 * size / 4 - 2
    assert classifier.score(["bad"])[0]["hate"] == pytest.approx(1 / (1 + np.exp(-logit)), rel=1e-5)
    bent = replace(classifier, slope=np.array([0.5, 1.0]), shift=np.array([0.25, 0.0]))
    assert bent.score(["bad"])[0]["hate"] == pytest.approx(1 / (1 + np.exp(-0.5 * logit - 0.25)), rel=1e-5)


def test_one_answer_a_text_in_their_order(classifier: LinearClassifier) -> None:
    scores = [answer["hate"] for answer in classifier.score(["good", "bad", "", "bad bad"])]
    assert scores[1] > 0.9
    assert scores[3] > 0.9
    assert scores[0] < 0.5
    assert scores[2] == pytest.approx(1 / (1 + np.exp(2)), rel=1e-5)
    assert classifier.score([]) == []


def test_a_long_text_scores_as_its_worst_part(classifier: LinearClassifier) -> None:
    filler = "zzz " * WINDOW
    assert (
        classifier.score([f"{filler} bad bad bad bad bad bad bad {filler}"])[0]["hate"]
        > 2 * classifier.score([filler])[0]["hate"]
    )


def test_weights_survive_a_file(classifier: LinearClassifier, tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    classifier.save(path)
    assert LinearClassifier.load(path).score(["bad", "good"]) == classifier.score(["bad", "good"])
    assert [each.name for each in tmp_path.iterdir()] == ["weights.npz"]


@pytest.mark.parametrize(
    "change",
    [
        {"format": np.int64(2)},
        {"categories": np.array(["hate", "rudeness"])},
        {"categories": np.array(["hate"])},
        {"categories": np.array(["hate", "violence"], dtype=object)},
        {"weights": np.zeros((1000, 2), dtype=np.int8)},
        {"weights": np.zeros((1024, 2), dtype=np.float64)},
        {"bias": np.zeros(3)},
        {"slope": np.array([np.nan, 1.0])},
        {"shift": None},
    ],
)
def test_a_file_that_holds_something_else_is_refused(
    classifier: LinearClassifier, tmp_path: Path, change: dict[str, np.ndarray | None]
) -> None:
    path = tmp_path / "weights.npz"
    classifier.save(path)
    with np.load(path) as file:
        arrays = {**file, **change}
    np.savez(path, **{name: value for name, value in arrays.items() if value is not None})
    with pytest.raises(ModelError, match=str(path)):
        LinearClassifier.load(path)


def test_a_missing_and_a_broken_file_are_errors_that_name_them(tmp_path: Path) -> None:
    path = tmp_path / "weights.npz"
    with pytest.raises(ModelError, match="no such file"):
        LinearClassifier.load(path)
    path.write_bytes(b"PK\x03\x04 broken")
    with pytest.raises(ModelError, match="train-filter"):
        LinearClassifier.load(path)
    path.write_bytes(b"")
    with pytest.raises(ModelError):
        LinearClassifier.load(path)
