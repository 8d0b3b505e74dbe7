"""Fine-tuning killed with SIGKILL at any touch of its folder, again and again, ends as if it had never been."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tutelage.dialogue import Dialogue
from tutelage.training.metrics import Run
from tutelage.training.sft import SFTConfig, train_sft

CONFIG = SFTConfig(
    model="tiny", epochs=3, batch_tokens=200, held_out=0.2, rank=2, alpha=4, checkpoint_every=2, max_steps=7
)
TOUCHES = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir", "shutil.rmtree")
Train = Callable[[Path], None]


@pytest.fixture
def train(home: Path, demonstrations: list[Dialogue]) -> Train:
    def run(folder: Path) -> None:
        opened = Run.open(folder, "sft", CONFIG.model_dump(), resume=True)
        train_sft(CONFIG, demonstrations, opened, home)

    return run


def in_child(action: Callable[[], None]) -> int:
    """Run in a child process; how it ended: minus the signal's number, or its exit code."""
    child = os.fork()
    if child == 0:
        code = 1
        try:
            action()
            code = 0
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def watch_touches(folder: Path, act: Callable[[int], None]) -> None:
    """Call `act` with 1, 2, 3, … whenever this process is about to touch something in `folder`."""
    seen = 0

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal seen
        if event in TOUCHES and str(arguments[0]).startswith(str(folder)):
            seen += 1
            act(seen)

    sys.addaudithook(hook)


def trained_until(train: Train, folder: Path, touch: int) -> None:
    watch_touches(folder, lambda seen: os.kill(os.getpid(), signal.SIGKILL) if seen == touch else None)
    train(folder)


def count_touches(train: Train, folder: Path, told: Path) -> int:
    """How often a whole run touches its folder."""
    lines = os.open(told, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def counted() -> None:
        watch_touches(folder, lambda seen: os.write(lines, b"x") and None)
        train(folder)

    assert in_child(counted) == 0
    os.close(lines)
    return told.stat().st_size


def outcome(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]], dict[str, list[float]]]:
    """What a run leaves: its manifest, its metrics but for the clock, its adapter."""
    metrics = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [{key: value for key, value in line.items() if key != "seconds"} for line in metrics]
    weights = load_file(folder / "adapter" / "adapter_model.safetensors")
    plain = {name: tensor.flatten().tolist() for name, tensor in weights.items()}
    return json.loads((folder / "manifest.json").read_text()), timeless, plain


def test_killed_anywhere_it_ends_as_if_it_had_not_been(train: Train, tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    total = count_touches(train, whole, tmp_path / "told")
    assert total > 50
    draw = random.Random(total)
    ends = []
    for attempt in range(8):
        folder = tmp_path / f"killed-{attempt}"
        for touch in draw.sample(range(1, total), 1 + attempt % 3):
            ends.append(in_child(partial(trained_until, train, folder, touch)))  # noqa: PERF401
        train(folder)
        assert outcome(folder) == outcome(whole)
        assert not list(folder.glob("*checkpoint*")), "a finished run keeps no checkpoint, nor a part of one"
    assert ends.count(-signal.SIGKILL) >= 8
    assert set(ends) <= {-signal.SIGKILL, 0}


def test_it_goes_on_from_the_checkpoint_before_where_the_newest_is_broken(
    train: Train, tmp_path: Path
) -> None:
    train(tmp_path / "whole")
    folder = tmp_path / "damaged"

    def killed_after_two() -> None:
        def act(_: int) -> None:
            if len(list(folder.glob("checkpoint-*"))) == 2:
                os.kill(os.getpid(), signal.SIGKILL)

        watch_touches(folder, act)
        train(folder)

    assert in_child(killed_after_two) == -signal.SIGKILL
    newest = folder / "checkpoint-000004" / "state.safetensors"
    newest.write_bytes(newest.read_bytes()[:-100])
    train(folder)
    assert outcome(folder) == outcome(tmp_path / "whole")
