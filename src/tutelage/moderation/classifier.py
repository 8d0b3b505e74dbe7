"""From text to a probability per category."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, cast

import numpy as np
import numpy.typing as npt

from tutelage.errors import ModelError, Sentence
from tutelage.moderation.categories import CATEGORIES, Category, Scores
from tutelage.moderation.features import Rows, hashed, windows

Floats = npt.NDArray[np.float32]

FORMAT = 1
SHORT = 16
"""So many n-grams a text must have to count in full: about one word."""
_CHUNK = 256
DEFAULT_WEIGHTS = Path(__file__).with_name("weights.npz")


class Classifier(Protocol):
    """Anything that scores texts: the one below, a moderation service, a language model as a judge."""

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        """A probability per category for each text; `contexts` holds what was said before each."""
        ...


@dataclass(frozen=True, slots=True)
class LinearClassifier:
    """One logistic regression per category over hashed n-grams.

    It looks at each text alone and takes no account of contexts. A long text scores as its worst window.

    weights: (buckets, categories), whole numbers of `scale`; scale, bias, slope, shift: (categories,).
    Slope and shift are the calibration: probability = sigmoid(slope * (weights · x + bias) + shift), where x is
    the binary row of n-grams divided by its `lengths`.
    """

    categories: tuple[Category, ...]
    weights: npt.NDArray[np.int8]
    scale: Floats
    bias: Floats
    slope: Floats
    shift: Floats

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        """A probability for each category that was trained, for each text."""
        if not texts:
            return []
        parts = [windows(text) for text in texts]
        flat = [window for part in parts for window in part]
        chunks = (flat[start : start + _CHUNK] for start in range(0, len(flat), _CHUNK))
        logits = np.concatenate([self.logits(hashed(chunk, bits=self.bits)) for chunk in chunks])
        starts = np.cumsum([0, *(len(part) for part in parts[:-1])])
        worst = np.maximum.reduceat(logits * self.slope + self.shift, starts, axis=0)
        return [dict(zip(self.categories, map(float, row), strict=True)) for row in sigmoid(worst)]

    @property
    def bits(self) -> int:
        return len(self.weights).bit_length() - 1

    def logits(self, rows: Rows) -> Floats:
        """Before calibration: (rows, categories)."""
        return row_sums(self.weights, rows) * self.scale + self.bias

    def save(self, path: Path) -> None:
        """Write the weights, all or nothing."""
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        with partial.open("wb") as file:
            np.savez_compressed(
                file,
                format=np.int64(FORMAT),
                categories=np.array(self.categories),
                weights=self.weights,
                scale=self.scale,
                bias=self.bias,
                slope=self.slope,
                shift=self.shift,
            )
        os.replace(partial, path)

    @classmethod
    def load(cls, path: Path | None = None) -> Self:
        """Read weights; those shipped with the package when no file is named. Raises ModelError."""
        path = path or DEFAULT_WEIGHTS
        try:
            with np.load(path, allow_pickle=False) as arrays:
                return cls._from_arrays(dict(arrays))
        except FileNotFoundError:
            raise ModelError("there is no such file of filter weights", where=str(path)) from None
        except PermissionError as error:
            message = Sentence("The file may not be read: {error}.", error=error.strerror)
            hint = "Give it to the user that runs this program."
            raise ModelError(message, where=str(path), hint=hint) from error
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ModelError(
                "these are not weights of the content filter",
                where=str(path),
                hint="Make them anew with `tutelage train-filter`, or remove the file: the shipped ones serve then.",
            ) from error

    @classmethod
    def _from_arrays(cls, arrays: dict[str, npt.NDArray[Any]]) -> Self:
        if int(arrays["format"]) != FORMAT:
            raise ValueError(f"format {int(arrays['format'])}, not {FORMAT}")
        names = tuple(str(name) for name in arrays["categories"])
        weights = arrays["weights"]
        if not set(names) <= set(CATEGORIES):
            raise ValueError("unknown categories")
        if weights.dtype != np.int8 or weights.ndim != 2 or weights.shape[1] != len(names):
            raise ValueError("the weights have the wrong shape")
        if len(weights) & (len(weights) - 1) or not len(weights):
            raise ValueError("the number of buckets is not a power of two")
        vectors = {name: arrays[name].astype(np.float32) for name in ("scale", "bias", "slope", "shift")}
        if any(vector.shape != (len(names),) or not np.isfinite(vector).all() for vector in vectors.values()):
            raise ValueError("the calibration has the wrong shape")
        return cls(cast(tuple[Category, ...], names), weights, **vectors)


def row_sums(weights: npt.NDArray[Any], rows: Rows) -> Floats:
    """weights · x for each row x, a binary row over its `lengths`: (rows, categories). Zero for an empty row."""
    sums = np.zeros((len(rows), weights.shape[1]), dtype=np.float32)
    filled = rows.sizes > 0
    if filled.any():
        gathered = weights[rows.indices].astype(np.float32)
        sums[filled] = np.add.reduceat(gathered, rows.starts[:-1][filled], axis=0)
        sums[filled] /= lengths(rows)[filled, None]
    return sums


def lengths(rows: Rows) -> Floats:
    """What each row is divided by: its length as a vector, but for very short texts, which prove little."""
    return np.sqrt(np.maximum(rows.sizes, SHORT), dtype=np.float32)


def sigmoid(logits: npt.NDArray[Any]) -> Floats:
    return cast(Floats, (1 / (1 + np.exp(-np.clip(logits, -30, 30)))).astype(np.float32))
