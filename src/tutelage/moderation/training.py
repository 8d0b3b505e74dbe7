"""Fitting the built-in classifier: logistic regressions over hashed n-grams, by AdaGrad, in numpy.

One model per category shares the rows. A category that a row says nothing about takes no part in its gradient.
Calibration (Platt 1999) is fitted on rows that were not trained on.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from tutelage.errors import DataError
from tutelage.moderation.classifier import Floats, LinearClassifier, lengths, row_sums, sigmoid
from tutelage.moderation.corpus import (
    HELD_OUT,
    TRAINED,
    Example,
    labelled_here,
    read,
    without_repeats,
    written,
)
from tutelage.moderation.features import BITS, WINDOW, Rows, hashed, windows
from tutelage.moderation.policy import Policy
from tutelage.moderation.report import Report, evaluate
from tutelage.moderation.sources import CHAT, LABELLED, UNSEEN

EPOCHS = 4
BATCH = 256
LEARNING_RATE = 0.5
FIRST_SQUARES = 0.01
"""What AdaGrad's sum of squared gradients begins with: larger means smaller first steps for rare n-grams."""
FIRST_BIAS = -4.0
"""Everything is taken for harmless at first."""
_CHUNK = 512


@dataclass(frozen=True, slots=True)
class Data:
    """Rows with targets. `target` and `weight`: (rows, categories); weight 0 where nothing is known."""

    rows: Rows
    target: Floats
    weight: Floats


def train(
    folder: Path, policy: Policy, *, labels: Path | None = None, say: Callable[[str], None]
) -> tuple[LinearClassifier, Report]:
    """Train on a folder of public sets, the package's own sentences and, if given, labels of one's own.

    The report is on what was not trained on: a part of each set, two sets of ordinary text, and sentences written
    for the purpose. Raises DataError for data that is missing or malformed.
    """
    own = labelled_here(labels) if labels else ()
    public = (example for source in (*LABELLED, *CHAT) for example in read(source, folder))
    examples = without_repeats([*own, *written(), *public])
    unseen = [example for source in UNSEEN for example in read(source, folder)]
    say(f"{sum(example.split == 'train' for example in examples)} texts to learn from")
    model = fit(examples, say=say)
    tests = [example for example in examples if example.split == "test"]
    return model, evaluate(model, [*tests, *unseen, *written(HELD_OUT)], policy)


def fit(
    examples: Sequence[Example], *, seed: int = 0, say: Callable[[str], None] = lambda line: None
) -> LinearClassifier:
    """Train on the examples of the `train` split and calibrate on those of the `calibration` split.

    Raises DataError when a category has no positive example to learn from.
    """
    train = to_data([example for example in examples if example.split == "train"])
    calibration = to_data([example for example in examples if example.split == "calibration"])
    for index, name in enumerate(TRAINED):
        if not (train.target * train.weight)[:, index].any():
            raise DataError(f"nothing in the data teaches what {name!r} is")
    weights, bias = descend(train, seed=seed, say=say)
    model = quantised(weights, bias)
    slope, shift = calibrated(model.logits(calibration.rows), calibration)
    return LinearClassifier(model.categories, model.weights, model.scale, model.bias, slope, shift)


def to_data(examples: Sequence[Example]) -> Data:
    """Hash the texts. A long harmless text gives a row per window; a long harmful one its beginning."""
    texts: list[str] = []
    owners: list[int] = []
    for number, example in enumerate(examples):
        parts = windows(example.text) if example.benign else [example.text[: 2 * WINDOW]]
        texts.extend(parts)
        owners.extend([number] * len(parts))
    target, weight = (table[owners] for table in _labels(examples))
    return Data(_hashed_in_chunks(texts), target, weight)


def _labels(examples: Sequence[Example]) -> tuple[Floats, Floats]:
    target = np.zeros((len(examples), len(TRAINED)), dtype=np.float32)
    weight = np.zeros_like(target)
    for row, example in enumerate(examples):
        for column, name in enumerate(TRAINED):
            if name in example.labels:
                target[row, column] = example.labels[name]
                weight[row, column] = example.weight
    return target, weight


def _hashed_in_chunks(texts: Sequence[str]) -> Rows:
    parts = [hashed(texts[start : start + _CHUNK]) for start in range(0, len(texts), _CHUNK)]
    if not parts:
        raise DataError("there is no text to learn from")
    sizes = np.concatenate([part.sizes for part in parts])
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    return Rows(np.concatenate([part.indices for part in parts]), starts)


def descend(data: Data, *, seed: int, say: Callable[[str], None]) -> tuple[Floats, Floats]:
    """Minimise the weighted logistic loss: weights (buckets, categories) and bias (categories,)."""
    rng = np.random.default_rng(seed)
    weights = np.zeros((1 << BITS, data.target.shape[1]), dtype=np.float32)
    squares = np.full_like(weights, FIRST_SQUARES)
    bias = np.full(weights.shape[1], FIRST_BIAS, dtype=np.float32)
    bias_squares = np.full_like(bias, BATCH)
    for epoch in range(EPOCHS):
        losses = []
        order = rng.permutation(len(data.rows))
        for start in range(0, len(order), BATCH):
            chosen = order[start : start + BATCH]
            rows, target, weight = data.rows.take(chosen), data.target[chosen], data.weight[chosen]
            error, loss = _error(row_sums(weights, rows) + bias, target, weight)
            losses.append(loss / len(chosen))
            buckets, gradient = _gradient(rows, error)
            squares[buckets] += gradient**2
            weights[buckets] -= LEARNING_RATE * gradient / np.sqrt(squares[buckets])
            total = error.sum(axis=0)
            bias_squares += total**2
            bias -= LEARNING_RATE * total / np.sqrt(bias_squares)
        say(f"epoch {epoch + 1} of {EPOCHS}: loss {np.mean(losses):.4f}")
    return weights, bias


def _error(logits: Floats, target: Floats, weight: Floats) -> tuple[Floats, float]:
    """The gradient of the summed loss by the logits, and that loss."""
    probability = sigmoid(logits)
    likelihood = np.where(target > 0, probability, 1 - probability)
    loss = -(weight * np.log(np.maximum(likelihood, 1e-7))).sum()
    return (weight * (probability - target)).astype(np.float32), float(loss)


def _gradient(rows: Rows, error: Floats) -> tuple[npt.NDArray[np.uint32], Floats]:
    """The buckets that the rows touch, ascending, and the gradient of each: (buckets, categories)."""
    scaled = error / lengths(rows)[:, None]
    order = np.argsort(rows.indices, kind="stable")
    indices = rows.indices[order]
    owners = np.repeat(np.arange(len(rows)), rows.sizes)[order]
    firsts = np.flatnonzero(np.concatenate([[True], indices[1:] != indices[:-1]]))
    return indices[firsts], np.add.reduceat(scaled[owners], firsts, axis=0)


def quantised(weights: Floats, bias: Floats) -> LinearClassifier:
    """Weights as whole numbers from -127 to 127 times a scale per category; not calibrated yet.

    The scale clips the largest thousandth of a category's weights.
    """
    touched = np.where(weights == 0, np.nan, np.abs(weights))
    scale = (np.nanquantile(touched, 0.999, axis=0) / 127).astype(np.float32)
    whole = np.clip(np.rint(weights / scale), -127, 127).astype(np.int8)
    ones = np.ones_like(bias)
    return LinearClassifier(TRAINED, whole, scale, bias, ones, np.zeros_like(ones))


def calibrated(logits: Floats, data: Data) -> tuple[Floats, Floats]:
    """Slope and shift per category that make sigmoid(slope * logit + shift) a probability (Platt 1999).

    Newton's method on two parameters, with Platt's softened targets. The slope stays positive.
    """
    pairs = [_platt(logits[:, k], data.target[:, k], data.weight[:, k]) for k in range(logits.shape[1])]
    slope, shift = np.array(pairs, dtype=np.float32).T
    return slope, shift


def _platt(logits: Floats, target: Floats, weight: Floats) -> tuple[float, float]:
    known = weight > 0
    x, y, w = (each[known].astype(np.float64) for each in (logits, target, weight))
    positives, negatives = y.sum(), (1 - y).sum()
    if not positives or not negatives:
        return 1.0, 0.0
    soft = np.where(y > 0, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    design = np.stack([x, np.ones_like(x)], axis=1)
    theta = np.array([1.0, 0.0])
    for _ in range(50):
        probability = 1 / (1 + np.exp(-np.clip(design @ theta, -30, 30)))
        gradient = design.T @ (w * (probability - soft)) + np.array([1e-3 * (theta[0] - 1), 0.0])
        curvature = design.T @ (design * (w * probability * (1 - probability))[:, None]) + np.diag(
            [1e-3, 1e-6]
        )
        step = np.linalg.solve(curvature, gradient)
        theta -= step * min(1.0, 2.0 / max(np.abs(step).max(), 1e-9))
        if np.abs(step).max() < 1e-6:
            break
    return max(float(theta[0]), 0.05), float(theta[1])
