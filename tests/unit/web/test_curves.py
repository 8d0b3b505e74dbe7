"""Metrics as drawings."""

from __future__ import annotations

import json
from pathlib import Path

from tutelage.web.curves import HEIGHT, POINTS, WIDTH, stage_curves, stages


def write(folder: Path, stage: str, rows: list[dict[str, float]], *, rest: str = "") -> None:
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
    rows = [{"loss": 1.0}, {"loss": float("nan")}, {"loss": float("inf")}, {"accuracy": 0.5}]
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
