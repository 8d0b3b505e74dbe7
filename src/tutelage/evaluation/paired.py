"""Shares that were counted twice on the same things: by how much the second is higher, and how sure that is.

Source: Tango 1998, Equivalence test and confidence interval for the difference in proportions for the paired-sample
design (Statistics in Medicine 17). It holds where few or none have changed, where a normal interval has no width.
"""

from __future__ import annotations

from math import sqrt
from statistics import NormalDist

_SURE = NormalDist().inv_cdf(0.95)


def rise(gone: int, come: int, count: int) -> tuple[float, float]:
    """The 90 % score interval of a rise: each of its ends holds at 95 %.

    Of `count` things, `come` have it only the second time and `gone` only the first. 0, 0, 48 gives ±0.053.
    """
    return -_highest(come, gone, count), _highest(gone, come, count)


def _highest(gone: int, come: int, count: int) -> float:
    """The largest rise that the counts do not speak against."""
    possible, refused = (come - gone) / count, 1.0
    for _ in range(50):
        middle = (possible + refused) / 2
        if _deviation(gone, come, count, middle) > -_SURE:
            possible = middle
        else:
            refused = middle
    return possible


def _deviation(gone: int, come: int, count: int, true_rise: float) -> float:
    """By how many standard errors the counts exceed a true rise, with the share `gone` that then is the likeliest."""
    linear = (2 * count - come + gone) * true_rise - come - gone
    root = sqrt(linear**2 + 8 * count * gone * true_rise * (1 - true_rise))
    share_gone = (root - linear) / (4 * count)
    variance = count * (2 * share_gone + true_rise * (1 - true_rise))
    return (come - gone - count * true_rise) / sqrt(variance) if variance > 0 else 0.0
