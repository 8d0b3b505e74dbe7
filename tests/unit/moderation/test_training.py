from __future__ import annotations

import numpy as np
import pytest

from tutelage.errors import DataError
from tutelage.moderation import training
from tutelage.moderation.classifier import LinearClassifier
from tutelage.moderation.corpus import TRAINED, Example, Split, means
from tutelage.moderation.training import calibrated, fit, quantised, to_data

SPLITS: tuple[Split, ...] = ("train", "train", "calibration", "test")


def examples() -> list[Example]:
    """Each category has a word of its own; a little of everything is harmless."""
    found = []
    for number in range(40):
        split = SPLITS[number % 4]
        for index, name in enumerate(TRAINED):
            labels = means(name, absent=tuple(other for other in TRAINED if other != name))
            found.append(Example(f"number {number} says word{chr(97 + index)}", labels, "made", split))
        found.append(Example(f"number {number} says hello", means(absent=TRAINED), "made", split))
    return found


@pytest.fixture(scope="module")
def trained() -> LinearClassifier:
    return fit(examples())


def test_each_category_learns_its_word(trained: LinearClassifier) -> None:
    for index, name in enumerate(TRAINED):
        scores = trained.score([f"who says word{chr(97 + index)}"])[0]
        assert max(scores, key=scores.__getitem__) == name
        assert scores[name] > 0.5
    assert max(trained.score(["number one says hello"])[0].values()) < 0.3


def test_training_repeats_itself(trained: LinearClassifier) -> None:
    assert (fit(examples()).weights == trained.weights).all()


def test_the_test_split_teaches_nothing(trained: LinearClassifier) -> None:
    others = [example for example in examples() if example.split != "test"]
    assert (fit(others).weights == trained.weights).all()


def test_what_a_row_says_nothing_about_does_not_move_a_category(trained: LinearClassifier) -> None:
    silent = [
        Example(f"wordc wordd {number}", means(absent=("hate",)), "made", "train") for number in range(200)
    ]
    moved = (fit([*examples(), *silent]).weights != trained.weights).any(axis=0)
    data = to_data(silent)
    known = data.weight.any(axis=0)
    assert known.sum() == 1
    assert moved[TRAINED.index("hate")]
    assert data.target.sum() == 0


def test_a_category_that_nothing_teaches_is_an_error() -> None:
    poor = [example for example in examples() if not example.labels["sexual"]]
    with pytest.raises(DataError, match="sexual"):
        fit(poor)


def test_long_harmless_text_is_learned_window_by_window() -> None:
    long = "harmless words " * 100
    benign, harmful = (
        Example(long, means(absent=TRAINED), "a", "train"),
        Example(long, means("hate"), "a", "train"),
    )
    assert len(to_data([benign]).rows) > 1
    assert len(to_data([harmful]).rows) == 1


def test_whole_numbers_stand_for_the_weights() -> None:
    rng = np.random.default_rng(0)
    weights = rng.normal(size=(1024, len(TRAINED))).astype(np.float32)
    model = quantised(weights, np.zeros(len(TRAINED), dtype=np.float32))
    assert np.abs(model.weights * model.scale - weights).mean() < 0.02
    assert model.weights.dtype == np.int8


def test_calibration_makes_scores_into_frequencies() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4000, 1)).astype(np.float32) * 2
    truth = 1 / (1 + np.exp(-(0.5 * logits - 1)))
    target = (rng.random((4000, 1)) < truth).astype(np.float32)
    data = training.Data(to_data(examples()[:1]).rows, target, np.ones_like(target))
    slope, shift = calibrated(logits, data)
    assert slope[0] == pytest.approx(0.5, abs=0.07)
    assert shift[0] == pytest.approx(-1, abs=0.1)


def test_calibration_leaves_a_category_without_both_kinds_as_it_is() -> None:
    target = np.zeros((3, 1), dtype=np.float32)
    data = training.Data(to_data(examples()[:1]).rows, target, np.ones_like(target))
    slope, shift = calibrated(np.array([[1.0], [2.0], [3.0]], dtype=np.float32), data)
    assert (slope[0], shift[0]) == (1.0, 0.0)
