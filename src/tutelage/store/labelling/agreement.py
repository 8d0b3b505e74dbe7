"""Krippendorff's alpha for ordered values, with its interval.

Written here rather than taken from a package because the interval needs a thousand alphas over resampled tasks: the
coincidences of each task are counted once and only added up anew. Source: K. Krippendorff, Computing Krippendorff's
Alpha-Reliability (2011), whose worked examples are the tests.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from numpy.typing import NDArray

Metric = Literal["nominal", "ordinal", "interval"]
Unit = Sequence[float]
"""The values that different people gave to one thing; who gave which does not matter."""
RESAMPLES = 1000


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with its 95 % interval; None where there is nothing to compute it from."""

    value: float | None
    low: float | None = None
    high: float | None = None

    def as_dict(self) -> dict[str, float | None]:
        """As plain JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def krippendorff_alpha(units: Iterable[Unit], *, metric: Metric = "ordinal") -> float | None:
    """1 is agreement, 0 what chance gives. None when no two people judged one thing, or nothing varies."""
    values, tables = _coincidences({index: [unit] for index, unit in enumerate(units)})
    return _alpha(tables.sum(axis=0), values, metric) if len(tables) else None


def alpha_with_interval(
    groups: Mapping[Hashable, Sequence[Unit]], *, metric: Metric = "ordinal", seed: int = 0
) -> Estimate:
    """Alpha over all units, and its percentile interval over resampled groups: units of a group are not independent."""
    import numpy as np

    values, tables = _coincidences(groups)
    if not len(tables):
        return Estimate(None)
    whole = _alpha(tables.sum(axis=0), values, metric)
    generator = np.random.default_rng(seed)
    count = len(tables)
    drawn = generator.multinomial(count, np.full(count, 1 / count), size=RESAMPLES)
    summed = np.tensordot(drawn.astype(float), tables, axes=1)
    found = [_alpha(table, values, metric) for table in summed]
    alphas = np.array([alpha for alpha in found if alpha is not None])
    if whole is None or not len(alphas):
        return Estimate(whole)
    low, high = np.quantile(alphas, [0.025, 0.975])
    return Estimate(whole, float(low), float(high))


def _coincidences(
    groups: Mapping[Hashable, Sequence[Unit]],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """All values in order, and a table (values, values) of coincidences a group; groups without any are left out."""
    import numpy as np

    kept = [[unit for unit in units if len(unit) > 1] for units in groups.values()]
    kept = [units for units in kept if units]
    values = np.array(sorted({value for units in kept for unit in units for value in unit}), dtype=float)
    place = {value: index for index, value in enumerate(values)}
    tables = np.zeros((len(kept), len(values), len(values)))
    for table, units in zip(tables, kept, strict=True):
        for unit in units:
            counts = np.zeros(len(values))
            for value in unit:
                counts[place[value]] += 1
            table += (np.outer(counts, counts) - np.diag(counts)) / (len(unit) - 1)
    return values, tables


def _alpha(table: NDArray[Any], values: NDArray[Any], metric: Metric) -> float | None:
    import numpy as np

    totals = table.sum(axis=0)
    distance = _distance(totals, values, metric)
    expected = float((np.outer(totals, totals) * distance).sum())
    if expected == 0:
        return None
    return 1 - (float(totals.sum()) - 1) * float((table * distance).sum()) / expected


def _distance(totals: NDArray[Any], values: NDArray[Any], metric: Metric) -> NDArray[Any]:
    """Squared differences (values, values); the ordinal one counts what lies between two values."""
    import numpy as np

    if metric == "nominal":
        return 1.0 - np.eye(len(totals))
    if metric == "interval":
        return np.asarray(np.subtract.outer(values, values) ** 2)
    middle = np.cumsum(totals) - totals / 2
    return np.asarray(np.subtract.outer(middle, middle) ** 2)
