"""The guide's examples are what the importers read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tutelage.datasets.sources import PARSERS, read
from tutelage.dialogue import Comparison

GUIDE = Path(__file__).parents[3] / "docs" / "guides" / "data.md"


@pytest.mark.parametrize(
    ("form", "dialogues", "comparisons"),
    [("messages", 5, 0), ("alpaca", 5, 0), ("oasst", 1, 1), ("hh", 0, 1), ("ranked", 0, 6)],
)
def test_examples_are_read_whole(tmp_path: Path, form: str, dialogues: int, comparisons: int) -> None:
    section = GUIDE.read_text(encoding="utf-8").split(f"## `tutelage import {form}`")[1].split("\n## ")[0]
    blocks = re.findall(r"```json\n(.*?)```", section, re.DOTALL)
    path = tmp_path / "examples.jsonl"
    path.write_text("".join(blocks).replace("\n  ", " "), encoding="utf-8")
    found: list[Any] = list(read(path, PARSERS[form], source="", default_source="guide"))
    judged = [one for one in found if isinstance(one, Comparison)]
    assert (len(found) - len(judged), len(judged)) == (dialogues, comparisons)
    assert {one.source for one in found} == {"guide"}
