"""How far a probability can be believed: the temperature of a reward, and the gap between confidence and accuracy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

_LIMIT = 1e3  # of a temperature and of its inverse: where order is mostly wrong, one would grow without end
_BINS = 10


def fit_temperature(margins: Tensor) -> float:
    """The T at which sigmoid(margin / T) has the least log loss. margins: (pairs,) better minus worse.

    Pairs count as right with (pairs + 1) / (pairs + 2) and not with 1, so that a few of them, all in order, do not
    make every later difference certain. The loss is convex in 1 / T, so the zero of its slope is found by bisection,
    on a logarithmic scale; within 0.001 and 1000. Sources: Guo et al. 2017 (1706.04599), section 4.2; Platt 1999,
    section 2.2.
    """
    if margins.numel() == 0:
        return 1.0
    margins = margins.double()
    right = (len(margins) + 1) / (len(margins) + 2)
    low, high = -torch.tensor(_LIMIT).log().item(), torch.tensor(_LIMIT).log().item()
    for _ in range(60):
        middle = (low + high) / 2  # of log(1 / T)
        slope = (margins * (torch.sigmoid(margins * torch.tensor(middle).exp()) - right)).sum()
        low, high = (low, middle) if slope > 0 else (middle, high)
    return torch.tensor(-(low + high) / 2).exp().item()


@dataclass(frozen=True, slots=True)
class Reliability:
    """Pairs by how sure the model was. Confidence and accuracy are means over the pairs of a bin, None when empty.

    error: the expected calibration error, the mean gap between the two, weighted by pairs.
    """

    bins: list[dict[str, Any]]
    error: float | None
    log_loss: float | None


def reliability(margins: Tensor, temperature: float) -> Reliability:
    """How sure the model was of each pair's order, against how often it was right.

    margins: (pairs,) better minus worse; the model's confidence is sigmoid(|margin| / temperature), from 0.5 to 1, in
    bins of equal width; an equal score counts half. Source: Guo et al. 2017 (1706.04599), section 2.
    """
    if margins.numel() == 0:
        return Reliability([], None, None)
    scaled = margins.double() / temperature
    confidence = torch.sigmoid(scaled.abs())
    right = (scaled > 0).double() + 0.5 * (scaled == 0)
    place = ((confidence - 0.5) * 2 * _BINS).long().clamp(0, _BINS - 1)
    bins: list[dict[str, Any]] = []
    error = 0.0
    for index in range(_BINS):
        inside = place == index
        count = int(inside.sum())
        row: dict[str, Any] = {"low": 0.5 + index / (2 * _BINS), "high": 0.5 + (index + 1) / (2 * _BINS)}
        row |= {"pairs": count, "confidence": None, "accuracy": None}
        if count:
            row |= {"confidence": confidence[inside].mean().item(), "accuracy": right[inside].mean().item()}
            error += count / len(margins) * abs(row["confidence"] - row["accuracy"])
        bins.append(row)
    return Reliability(bins, error, F.softplus(-scaled).mean().item())
