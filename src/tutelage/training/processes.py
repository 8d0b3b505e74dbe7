"""A job carried out by several processes of this machine, under torchrun.

This process trains nothing: it starts the others, passes on how far they are, and ends them all when one of them
fails or somebody interrupts it. Their complaints go to `processes.log` in the run's folder.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from tutelage.errors import ConfigError
from tutelage.training.job import Job, Trainer
from tutelage.training.metrics import Progress, Run
from tutelage.training.rank import Listener

LOG = "processes.log"
_LAST_WORDS = 20  # seconds until processes that were told to end are killed


def in_processes(processes: int) -> Trainer:
    """A trainer of so many processes. Raises ConfigError when this machine has GPUs, and fewer of them."""
    if torch.cuda.is_available() and torch.cuda.device_count() < processes:
        raise ConfigError(
            f"{processes} processes were asked for, and this machine has {torch.cuda.device_count()} GPUs",
            hint="each process needs a GPU of its own: lower --processes",
        )
    return partial(train_in_processes, processes=processes)


def train_in_processes(job: Job, progress: Progress, *, processes: int) -> dict[str, Any]:
    """Carry out a job in `processes` processes, each on a GPU of its own where there are any.

    Raises TrainingError when a process fails.
    """
    listener = Listener(progress)
    with _torchrun(job, processes) as torchrun:
        assert torchrun.stdout is not None
        for line in torchrun.stdout:
            listener.hear(_news(line))
        code = torchrun.wait()
    if code:
        raise listener.failure(processes, str(job.run / LOG))
    return Run(job.run, job.stage).manifest()


@contextmanager
def _torchrun(job: Job, processes: int) -> Iterator[subprocess.Popen[str]]:
    """All processes of a job, ended when the block is left early. They share the cores of this machine."""
    launcher = ["--standalone", f"--nproc-per-node={processes}", f"--shutdown-timeout={_LAST_WORDS // 4}"]
    rank = ["-m", "tutelage.training.rank", str(job.write()), str(processes)]
    threads = str(max(1, torch.get_num_threads() // processes))
    with (
        (job.run / LOG).open("wb") as log,
        subprocess.Popen(
            [sys.executable, "-m", "torch.distributed.run", *launcher, *rank],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env={"OMP_NUM_THREADS": threads, **os.environ},
            start_new_session=True,  # Ctrl+C comes here, and from here to them
            close_fds=False,  # the lock of the run's folder is theirs, too
        ) as torchrun,
    ):
        try:
            yield torchrun
        finally:
            torchrun.terminate()
            try:
                torchrun.wait(_LAST_WORDS)
            except subprocess.TimeoutExpired:
                torchrun.kill()


def _news(line: str) -> dict[str, Any]:
    """What a process says; nothing for what a library has printed."""
    try:
        news = json.loads(line)
    except ValueError:
        return {}
    return news if isinstance(news, dict) else {}
