"""The experiment with simulated people, as small as it gets: every part is at work, and every fact is written down."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SMALL = [
    "sft.epochs=12",
    "reward.epochs=1",
    "ppo.steps=2",
    "ppo.value.warmup_steps=1",
    "ppo.prompts_per_step=8",
    "ppo.max_new_tokens=16",
    "ppo.held_out_prompts=4",
    "evaluation.prompts=4",
    "evaluation.max_new_tokens=16",
]


@pytest.mark.timeout(400)
def test_the_circle_turns_once_for_simulated_people(tmp_path: Path) -> None:
    counts = ["--model", "tiny", "--rounds", "1", "--chats", "12", "--rankings", "12", "--readers", "4"]
    short = ["--samples", "2", "--answer-tokens", "16", "--trainers", "3", "--home", str(tmp_path)]
    settings = [part for each in SMALL for part in ("--set", each)]
    command = [sys.executable, str(ROOT / "experiments/circle.py"), *counts, *short, *settings]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    rows = [json.loads(line) for line in (tmp_path / "circle.jsonl").read_text(encoding="utf-8").splitlines()]
    events = [row["event"] for row in rows]
    start, training = ["started", "measured", "chats", "rankings"], ["trained", "not promoted", "measured"]
    assert events == [*start, *training, "judged", "verdict"]
    by_event = {row["event"]: row for row in rows}
    assert by_event["rankings"]["rankings"] == 12
    assert 12 <= by_event["chats"]["thumbs"] <= 24
    assert by_event["trained"]["gate"] == "not_enough_data"
    assert "wanted: at least 30" in by_event["not promoted"]["why"]
    assert by_event["verdict"]["win_rate"] == by_event["measured"]["win_rate"]
    answers = [
        json.loads(line) for line in (tmp_path / "answers.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert {row["version"] for row in answers} == {
        row["version"] for row in rows if row["event"] == "measured"
    }
