"""A run's metrics as curves: small SVG drawings, read from the files that training writes."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

WIDTH, HEIGHT = 300, 90
POINTS = 200
# What is drawn of each stage, if it was measured.
SHOWN: dict[str, tuple[str, ...]] = {
    "sft": ("loss",),
    "reward": ("loss", "accuracy"),
    "judge": ("accuracy",),
    "gold": ("accuracy",),
    "dpo": ("loss", "margin"),
    "ppo": ("reward", "held_out_gold", "kl", "length", "entropy"),
}


@dataclass(frozen=True, slots=True)
class Curve:
    """One metric: an SVG path, and what stands beside it."""

    name: str
    path: str
    first: float
    last: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class StageCurves:
    """A stage of a round: how many steps it has done, in how many seconds of work, and its curves."""

    stage: str
    steps: int
    seconds: float
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class Turn:
    """Rewards against the square root of the KL, on one scale: SVG paths of proxy, gold and Gao's fit to the latter.

    furthest: the right end in nats; best_step, best_place: the moment that was published, and where it stands; peak:
    the KL at which the fitted gold reward is highest; beside: length and entropy, each on a scale of its own.
    """

    paths: dict[str, str]
    low: float
    high: float
    furthest: float
    best_step: int
    best_place: float
    peak: float | None
    beside: tuple[Curve, ...]


def stages(folder: Path) -> list[StageCurves]:
    """The stages of a round that have begun, in order."""
    found = (stage_curves(folder / name / "metrics.jsonl", name) for name in SHOWN)
    return [each for each in found if each is not None]


def stage_curves(file: Path, stage: str) -> StageCurves | None:
    """None before the first step. A line that is being written is left out."""
    rows = read_metrics(file)
    if not rows:
        return None
    curves = [curve for name in SHOWN[stage] if (curve := _curve(name, rows)) is not None]
    return StageCurves(stage, len(rows), _worked(rows), tuple(curves))


def _worked(rows: Sequence[dict[str, float]]) -> float:
    """Seconds of work in all: each process that takes a stage up counts from 0 again."""
    spent = last = 0.0
    for row in rows:
        seconds = float(row.get("seconds", 0.0))
        if seconds < last:
            spent += last
        last = seconds
    return spent + last


def read_metrics(file: Path) -> list[dict[str, float]]:
    """One dict a step, oldest first; empty when there is no file."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    rows: list[dict[str, float]] = []
    for line in lines:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def _curve(name: str, rows: Sequence[dict[str, float]]) -> Curve | None:
    values = [float(row[name]) for row in rows if isinstance(row.get(name), int | float)]
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return None
    shown = _thinned(values)
    if len(shown) == 1:
        shown *= 2  # a level line
    low, high = min(shown), max(shown)
    path = _path(list(enumerate(shown)), len(shown) - 1, low, high)
    return Curve(name, path, values[0], values[-1], low, high)


def turn(found: dict[str, Any]) -> Turn | None:
    """What `overoptimisation.Watch.summary` holds, drawn; None with less than two looks."""
    looks = found.get("curve") or []
    if len(looks) < 2:
        return None
    places = [math.sqrt(max(0.0, look["kl"])) for look in looks]
    end = max(places) or 1.0
    lines = {
        name: list(zip(places, (look[name] for look in looks), strict=True)) for name in ("reward", "gold")
    }
    fit = found.get("fit")
    if fit:
        steps = [end * (index + 1) / POINTS for index in range(POINTS)]
        base = looks[0]["gold"]
        lines["fit"] = [(d, base + d * (fit["alpha"] - fit["beta"] * math.log(d))) for d in steps]
    heights = [y for line in lines.values() for _, y in line]
    low, high = min(heights), max(heights)
    best = next((look for look in looks if look["step"] == found.get("best_step")), looks[0])
    return Turn(
        {name: _path(line, end, low, high) for name, line in lines.items()},
        low,
        high,
        end**2,
        int(best["step"]),
        math.sqrt(max(0.0, best["kl"])) / end * WIDTH,
        fit.get("peak_kl") if fit else None,
        tuple(_against(name, places, [look[name] for look in looks]) for name in ("length", "entropy")),
    )


def _against(name: str, places: Sequence[float], values: Sequence[float]) -> Curve:
    low, high = min(values), max(values)
    line = list(zip(places, values, strict=True))
    return Curve(name, _path(line, max(places) or 1.0, low, high), values[0], values[-1], low, high)


def _path(line: Sequence[tuple[float, float]], end: float, low: float, high: float) -> str:
    spread = (high - low) or 1.0
    points = [f"{x / end * WIDTH:.1f},{HEIGHT - (y - low) / spread * HEIGHT:.1f}" for x, y in line]
    return "M" + " L".join(points)


def _thinned(values: Sequence[float]) -> list[float]:
    """Means of equal parts, where there are more values than points to draw."""
    if len(values) <= POINTS:
        return list(values)
    edges = [round(index * len(values) / POINTS) for index in range(POINTS + 1)]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
