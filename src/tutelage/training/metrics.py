"""A run's folder: settings, metrics as JSONL, checkpoints, and what the run made.

runs/NAME/config.json          the settings of the run
runs/NAME/plan.json            its inputs: a snapshot, and what to start from
runs/NAME/metrics.jsonl        one line a step, that which stopped the run too; null is a number that is none
runs/NAME/checkpoint-000040/   a state to go on from; the newest two are kept
runs/NAME/adapter/             what the run made, in PEFT's format
runs/NAME/manifest.json        written last: with it, the run is finished and can be published
"""

from __future__ import annotations

import json
import math
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tutelage.errors import Conflict, NotFound, Sentence, TrainingError
from tutelage.registry.version import read_json, write_json
from tutelage.training.distributed import world

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called with the stage's name, steps done, steps in all, and the newest metrics."""


def no_progress(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
    """For runs that nobody watches."""


@dataclass(slots=True)
class Run:
    """One training run's folder, written by the first process alone. `stage` names it in progress bars."""

    folder: Path
    stage: str
    progress: Progress = no_progress
    _started: float = field(default_factory=time.monotonic)

    @classmethod
    def open(
        cls,
        folder: Path,
        stage: str,
        settings: dict[str, Any],
        *,
        resume: bool,
        progress: Progress = no_progress,
    ) -> Run:
        """Make a run's folder, or take up the one that is there.

        Raises Conflict when the folder belongs to a run with other settings, or to one that was not to be
        resumed; NotFound when there is nothing to resume; ModelError when its settings cannot be read.
        """
        config = folder / "config.json"
        if config.exists():
            if not resume:
                raise Conflict(
                    "this run exists already",
                    hint=Sentence(
                        "go on with --resume, or choose another name than {folder}", folder=folder.name
                    ),
                )
            if changed := _begun_with(read_json(config), json.loads(json.dumps(settings))):
                raise Conflict(
                    Sentence("this run began with {settings}", settings=", ".join(changed)),
                    hint="restore the recipe and what --set gave, or start a new run",
                )
        elif resume and any(folder.glob("[!.]*")):  # an empty one is a run that was killed at once
            raise NotFound(
                "there is no run to resume", hint=Sentence("{folder} holds no config.json", folder=folder)
            )
        run = cls(folder, stage, progress)
        if not config.exists():
            run.keep(config.name, settings)
        if run.finished:
            run._drop_checkpoints()  # it was killed while it did so itself
        return run

    @property
    def finished(self) -> bool:
        return (self.folder / "manifest.json").exists()

    def manifest(self) -> dict[str, Any]:
        """What a finished run wrote about itself."""
        return read_json(self.folder / "manifest.json")

    def keep(self, name: str, content: dict[str, Any]) -> None:
        """Write a JSON file of the run, whole or not at all. Raises TrainingError when there is no room."""
        file = self.folder / name
        with _writing(file):
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)  # what people wrote is in it
            write_json(file, content)

    def rewind(self, step: int) -> None:
        """Forget metrics of steps from `step` on: they are about to be made again."""
        file = self.folder / "metrics.jsonl"
        if not file.exists() or not world().is_first:
            return
        kept = []
        for line in file.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                if json.loads(line)["step"] < step:
                    kept.append(line + "\n")
            except (ValueError, KeyError, TypeError):
                break  # a line that was being written when the run was killed
        partial = file.with_suffix(".partial")
        with _writing(file):
            partial.write_text("".join(kept), encoding="utf-8")
            os.replace(partial, file)

    @contextmanager
    def step(self, step: int, total: int) -> Iterator[dict[str, float]]:
        """A step that puts its metrics into the dict given, and is logged in the end.

        When it stops the run, what it had measured until then is logged all the same, and the bar stays where it is.
        """
        metrics: dict[str, float] = {}
        try:
            yield metrics
        except TrainingError:
            with suppress(TrainingError):
                self._append(step, metrics)
            raise
        self.log(step, total, metrics)

    def log(self, step: int, total: int, metrics: dict[str, float]) -> None:
        """Append one step's metrics and move the progress bar."""
        if world().is_first:
            self._append(step, metrics)
            self.progress(self.stage, step + 1, total, metrics)

    def _append(self, step: int, metrics: dict[str, float]) -> None:
        if not metrics or not world().is_first:
            return
        known = {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        record = {"step": step, "seconds": round(time.monotonic() - self._started, 3), **known}
        path = self.folder / "metrics.jsonl"
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(record) + "\n")

    def finish(self, manifest: dict[str, Any]) -> None:
        """Write the manifest, which makes the run publishable, and drop its checkpoints.

        Raises TrainingError when what was measured in the end is no number.
        """
        file = self.folder / "manifest.json"
        try:
            json.dumps(manifest.get("evaluation"), allow_nan=False)
        except ValueError as error:
            raise TrainingError(
                "what was measured in the end is no number: the last steps have driven the weights apart",
                where=str(file),
                hint="begin a new run with a lower learning rate",
            ) from error
        if not world().is_first:
            return
        self.keep(file.name, manifest)
        self._drop_checkpoints()

    def _drop_checkpoints(self) -> None:
        for checkpoint in [*self.folder.glob("checkpoint-*"), *self.folder.glob(".checkpoint-*")]:
            shutil.rmtree(checkpoint, ignore_errors=True)


@contextmanager
def _writing(file: Path) -> Iterator[None]:
    """A full disk, or a folder that may not be written to, becomes an error with a way out."""
    try:
        yield
    except OSError as error:
        raise TrainingError(
            Sentence("the run's file cannot be written: {error}", error=error.strerror or error),
            where=str(file),
            hint="make room there, then go on with --resume",
        ) from error


def _begun_with(before: dict[str, Any], now: dict[str, Any], section: str = "") -> list[str]:
    """The settings of before that are others now, as `--set` takes them."""
    found: list[str] = []
    for key, value in before.items():
        other = now.get(key)
        if isinstance(value, dict) and isinstance(other, dict):
            found += _begun_with(value, other, f"{section}{key}.")
        elif value != other:
            found.append(f"{section}{key}={json.dumps(value)}")
    return found + [f"no {section}{key}" for key in now if key not in before]
