"""A round's log: what a person reads who wants to know what became of it."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tutelage.errors import TrainingError
from tutelage.improvement.journal import LOG, journal
from tutelage.training.metrics import no_progress


def lines(folder: Path) -> list[str]:
    """Without their times."""
    return [line.partition(" UTC ")[2] or line for line in (folder / LOG).read_text().splitlines()]


def test_stages_begin_and_end_with_their_last_figures(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    with journal(tmp_path, lambda stage, done, *rest: seen.append((stage, done))) as progress:
        for step in (1, 2):
            progress("sft", step, 2, {"loss": 3.14159 / step})
        logging.getLogger("tutelage.training").warning("a checkpoint was passed over")
        logging.getLogger("elsewhere").warning("not ours")
        progress("evaluation", 0, 1, {})
        progress("evaluation", 1, 1, {})
    first, *rest = lines(tmp_path)
    assert first.startswith("INFO taken up by process ")
    assert rest == [
        "INFO sft: at step 1 of 2",
        "INFO sft: done (loss 1.571)",
        "WARNING a checkpoint was passed over",
        "INFO evaluation: at step 0 of 1",
        "INFO evaluation: done",
        "INFO done",
    ]
    assert seen == [("sft", 1), ("sft", 2), ("evaluation", 0), ("evaluation", 1)]


def test_times_are_universal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Asia/Taipei")
    time.tzset()
    with journal(tmp_path, no_progress):
        pass
    monkeypatch.undo()
    time.tzset()
    written = (tmp_path / LOG).read_text()[:23]
    said = datetime.strptime(written, "%Y-%m-%d %H:%M:%S UTC").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - said) < timedelta(minutes=5)


def test_what_went_wrong_is_kept_with_its_hint_or_its_place_and_the_next_process_goes_on(
    tmp_path: Path,
) -> None:
    with pytest.raises(TrainingError), journal(tmp_path, no_progress):
        raise TrainingError("the loss is not a number", hint="lower the learning rate")
    with pytest.raises(ZeroDivisionError), journal(tmp_path, no_progress):
        _ = 1 / 0
    logging.getLogger("tutelage").warning("after the round")
    with journal(tmp_path, no_progress):
        pass
    found = lines(tmp_path)
    assert found[1:3] == ["ERROR ended: the loss is not a number", "hint: lower the learning rate"]
    assert "ERROR broke off" in found
    assert any("test_journal.py" in line for line in found)
    assert "ZeroDivisionError: division by zero" in found
    assert found[-1] == "INFO done"
    assert sum("taken up" in line for line in found) == 3
    assert not any("after the round" in line for line in found)
