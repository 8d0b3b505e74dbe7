"""One of several training processes, what it says, and who listens.

torchrun starts it as `python -m tutelage.training.rank JOB PROCESSES`; it then speaks JSON on stdout, a line at a
time: how far the first process is, and why a process had to stop.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tutelage.errors import Sentence, TrainingError, TutelageError
from tutelage.training.distributed import LostContact, joined
from tutelage.training.job import Job, train
from tutelage.training.metrics import Progress

STOPPED = 2
PARTS = ("message", "where", "hint")
Say = Callable[[dict[str, Any]], None]


def take_part(job_file: Path, processes: int, say: Say) -> None:
    """Carry out this process's part of a job. Raises what the job raises, after having said it."""

    def progress(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
        say({"progress": [stage, done, total, metrics]})

    try:
        with joined(processes):
            train(Job.read(job_file), progress)
    except TutelageError as error:
        reason: dict[str, Any] = {part: Sentence.of(getattr(error, part)).stored() for part in PARTS}
        say({"error": reason | {"consequence": isinstance(error, LostContact)}})
        raise


class Listener:
    """Hears what all processes of a job say: passes on their progress, and remembers their errors."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._reasons: list[dict[str, Any]] = []

    def hear(self, news: dict[str, Any]) -> None:
        """Take in one thing that a process has said."""
        if "progress" in news:
            self._progress(*news["progress"])
        elif "error" in news:
            self._reasons.append(news["error"])

    def failure(self, processes: int, log: str) -> TrainingError:
        """The error that came first. A process that lost contact only says that another one has ended."""
        for reason in self._reasons:
            if not reason["consequence"]:
                message, where, hint = map(Sentence.restored, (reason[part] for part in PARTS))
                return TrainingError(message, where=where, hint=hint)
        return TrainingError(
            Sentence("one of the {processes} processes ended", processes=processes),
            where=log,
            hint="where that says nothing it was killed, often for lack of memory; go on with --resume",
        )


def speak(news: dict[str, Any]) -> None:
    """A line in one write: all processes speak into the same pipe, and `print` writes the end of a line by itself."""
    sys.stdout.write(json.dumps(news) + "\n")
    sys.stdout.flush()


def main(job_file: str, processes: str) -> int:
    """A process under torchrun; its exit code."""
    try:
        take_part(Path(job_file), int(processes), speak)
    except TutelageError:
        return STOPPED
    return 0


if __name__ == "__main__":
    code = main(*sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # gloo's threads may still run, and abort a process that takes itself apart around them
