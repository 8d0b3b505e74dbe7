"""Metrics as drawings."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from tutelage.web.curves import HEIGHT, POINTS, WIDTH, stage_curves, stages, turn


def write(folder: Path, stage: str, rows: list[Any], *, rest: str = "") -> None:
    (folder / stage).mkdir()
    text = "".join(json.dumps(row) + "\n" for row in rows) + rest
    (folder / stage / "metrics.jsonl").write_text(text)


def test_a_curve_goes_from_the_left_edge_to_the_right_and_down_when_values_fall(tmp_path: Path) -> None:
    write(
        tmp_path, "sft", [{"step": 0, "seconds": 1.0, "loss": 4.0}, {"step": 1, "seconds": 2.5, "loss": 2.0}]
    )
    [found] = stages(tmp_path)
    assert (found.stage, found.steps, found.seconds) == ("sft", 2, 2.5)
    [curve] = found.curves
    assert curve.path == f"M0.0,0.0 L{WIDTH}.0,{HEIGHT}.0"
    assert (curve.first, curve.last, curve.low, curve.high) == (4.0, 2.0, 2.0, 4.0)


def test_lines_that_are_being_written_and_what_is_no_number_are_left_out(tmp_path: Path) -> None:
    rows = [{"loss": 1.0}, {"loss": float("nan")}, {"loss": None}, {"accuracy": 0.5}]
    write(tmp_path, "reward", rows, rest='{"loss": 0.')
    found = stage_curves(tmp_path / "reward" / "metrics.jsonl", "reward")
    assert found is not None
    assert [(curve.name, curve.first, curve.last) for curve in found.curves] == [
        ("loss", 1.0, 1.0),
        ("accuracy", 0.5, 0.5),
    ]
    assert "nan" not in found.curves[0].path


def test_the_time_of_a_stage_counts_every_process_that_worked_on_it(tmp_path: Path) -> None:
    write(tmp_path, "sft", [{"loss": 1.0, "seconds": each} for each in (10.0, 20.0, 4.0, 9.0, 2.0)])
    [found] = stages(tmp_path)
    assert found.seconds == 20 + 9 + 2


def test_long_runs_are_thinned(tmp_path: Path) -> None:
    write(tmp_path, "sft", [{"loss": float(number)} for number in range(5000)])
    [found] = stages(tmp_path)
    assert found.curves[0].path.count(",") == POINTS
    assert stages(tmp_path / "nowhere") == []


def test_rewards_stand_on_one_scale_against_the_root_of_the_kl() -> None:
    looks = [
        {"step": 0, "kl": 0.0, "reward": 0.0, "gold": 0.0, "length": 40.0, "entropy": 2.0},
        {"step": 4, "kl": 1.0, "reward": 1.0, "gold": 0.5, "length": 30.0, "entropy": 1.5},
        {"step": 8, "kl": 4.0, "reward": 2.0, "gold": 0.25, "length": 20.0, "entropy": 1.0},
    ]
    drawn = turn({"best_step": 4, "curve": looks, "fit": None})
    assert drawn is not None
    half = WIDTH / 2
    assert drawn.paths == {
        "reward": f"M0.0,{HEIGHT}.0 L{half},{HEIGHT / 2} L{WIDTH}.0,0.0",
        "gold": f"M0.0,{HEIGHT}.0 L{half},{HEIGHT * 3 / 4} L{WIDTH}.0,{HEIGHT * 7 / 8:.1f}",
    }
    assert (drawn.furthest, drawn.best_step, drawn.best_place, drawn.peak) == (4.0, 4, half, None)
    assert [(each.name, each.first, each.last) for each in drawn.beside] == [
        ("length", 40.0, 20.0),
        ("entropy", 2.0, 1.0),
    ]
    fitted = turn(
        {"best_step": 4, "curve": looks, "fit": {"alpha": 0.5, "beta": 0.5, "r2": 1.0, "peak_kl": 1.0}}
    )
    assert fitted is not None
    assert fitted.peak == 1.0
    ends = [float(point.split(",")[1]) for point in fitted.paths["fit"].split(" L")]
    assert min(ends) == round(
        HEIGHT - 0.5 / 2 * HEIGHT, 1
    )  # d (0.5 - 0.5 log d) is highest at d = 1, where it is 0.5
    last = 2 * (0.5 - 0.5 * math.log(2))
    assert ends[-1] == round(HEIGHT - last / 2 * HEIGHT, 1)
    assert turn({}) is None


def test_a_run_that_did_not_move_is_drawn_all_the_same() -> None:
    still = [
        {"step": n, "kl": 0.0, "reward": 1.0, "gold": 1.0, "length": 5.0, "entropy": 1.0} for n in (0, 4)
    ]
    drawn = turn({"best_step": 0, "curve": still, "fit": None})
    assert drawn is not None
    assert drawn.furthest == 1.0
    assert "nan" not in drawn.paths["gold"]
