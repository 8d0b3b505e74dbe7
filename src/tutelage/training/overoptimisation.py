"""Where more of the trained-on reward stops being better: a second reward model, of other data, watches.

The gold reward model never trains the policy. On prompts held out for it, it judges the policy every few steps
beside the proxy (the reward that is maximised). At first both rise; past a knee the proxy rises and the gold
falls. The run ends there, and its best moment is what it gives.

Source: Gao et al. 2022 (2210.10760): gold reward ~ d (alpha - beta log d) with d = sqrt(KL), section 3.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

Standing = dict[str, list[float]]
"""For each prompt, in the same order: `reward`, `gold`, `kl`, `entropy`, `length`, `ended` of one answer."""

_FEW_POINTS = 4


@dataclass(frozen=True, slots=True)
class Best:
    """The best moment so far by the gold reward: the number of steps done, and where the policy stood."""

    step: int
    standing: Standing


@dataclass(frozen=True, slots=True)
class Watch:
    """What has been seen of a run: means at each look (step 0 is the SFT model), and the best of them."""

    curve: tuple[dict[str, float], ...]
    best: Best

    @classmethod
    def begin(cls, standing: Standing) -> Watch:
        """At the SFT model."""
        return cls((_means(0, standing),), Best(0, standing))

    @classmethod
    def restore(cls, kept: dict[str, Any]) -> Watch:
        """From what `as_dict` gave."""
        return cls(tuple(kept["curve"]), Best(kept["best_step"], kept["best_standing"]))

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON."""
        best = {"best_step": self.best.step, "best_standing": self.best.standing}
        return {"curve": list(self.curve), **best}

    def after(self, step: int, standing: Standing) -> Watch:
        """With one more look; it becomes the best when its gold reward is the highest."""
        gold = statistics.fmean(standing["gold"])
        better = gold > statistics.fmean(self.best.standing["gold"])
        best = Best(step, standing) if better else self.best
        return Watch((*self.curve, _means(step, standing)), best)

    def summary(self) -> dict[str, Any]:
        """The curve, the published step, and the fit."""
        return {"best_step": self.best.step, "curve": list(self.curve), "fit": fit(self.curve)}


def past_knee(best: Standing, now: Standing, *, noise: float) -> bool:
    """Whether the gold reward is below its best by more than its noise while the proxy is above.

    The noise is `noise` standard errors of the difference on the same prompts.
    """
    falls = [old - new for old, new in zip(best["gold"], now["gold"], strict=True)]
    error = statistics.stdev(falls) / math.sqrt(len(falls))
    rises = statistics.fmean(now["reward"]) > statistics.fmean(best["reward"])
    return rises and statistics.fmean(falls) > noise * error


def fit(curve: Sequence[dict[str, float]]) -> dict[str, float] | None:
    """Least squares of gold - gold(SFT) = d (alpha - beta log d), d = sqrt(KL); None with too few points.

    Returns alpha, beta, r2, and with beta > 0 the KL at which the fitted gold reward is highest.
    """
    points = [(math.sqrt(p["kl"]), p["gold"] - curve[0]["gold"]) for p in curve if p["kl"] > 0.01]
    if len(points) < _FEW_POINTS:
        return None
    d = torch.tensor([x for x, _ in points], dtype=torch.float64)
    gold = torch.tensor([y for _, y in points], dtype=torch.float64)
    columns = torch.stack([d, -d * d.log()], dim=1)
    solution = torch.linalg.lstsq(columns, gold).solution
    alpha, beta = solution.tolist()
    left = float((gold - columns @ solution).square().sum())
    whole = float((gold - gold.mean()).square().sum())
    result = {"alpha": alpha, "beta": beta, "r2": 1 - left / whole if whole else 0.0}
    if beta > 0:
        result["peak_kl"] = math.exp(2 * (alpha / beta - 1))
    return result


def plot(watch: Watch, file: Path) -> bool:
    """Draw proxy and gold reward, length and entropy against sqrt(KL).

    False without matplotlib (`pip install tutelage[plots]`).
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        return False
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes, below = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
    d = [math.sqrt(max(0.0, point["kl"])) for point in watch.curve]
    for key, label in (("reward", "reward it trains on"), ("gold", "gold reward")):
        errors = [2 * point[f"{key}_error"] for point in watch.curve]
        axes.errorbar(
            d, [point[key] for point in watch.curve], yerr=errors, marker="o", capsize=2, label=label
        )
    found = fit(watch.curve)
    if found:
        ends = max(d)
        steps = [ends * (i + 1) / 100 for i in range(100)]
        base = watch.curve[0]["gold"]
        fitted = [base + x * (found["alpha"] - found["beta"] * math.log(x)) for x in steps]
        axes.plot(steps, fitted, linestyle="--", label="d(α − β log d)")
    best = next(point for point in watch.curve if point["step"] == watch.best.step)
    axes.axvline(
        math.sqrt(max(0.0, best["kl"])), color="grey", linewidth=0.8, label=f"best: step {watch.best.step}"
    )
    axes.set_ylabel("reward (SFT samples: mean 0, deviation 1)")
    axes.legend()
    for key, unit, each, colour in (
        ("length", "length (tokens)", below, "C4"),
        ("entropy", "entropy (nats)", below.twinx(), "C3"),
    ):
        each.plot(d, [point[key] for point in watch.curve], marker="o", markersize=3, color=colour)
        each.set_ylabel(unit, color=colour)
    below.set_xlabel("√KL to the SFT model (√nats)")
    figure.savefig(file)
    return True


def _means(step: int, standing: Standing) -> dict[str, float]:
    """Means over prompts, and the standard errors of both rewards."""
    means: dict[str, float] = {"step": step}
    means |= {key: statistics.fmean(values) for key, values in standing.items()}
    for key in ("reward", "gold"):
        means[f"{key}_error"] = statistics.stdev(standing[key]) / math.sqrt(len(standing[key]))
    return means
