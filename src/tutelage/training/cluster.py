"""A job carried out on a Ray cluster, by Ray Train.

Every machine of the cluster sees the home folder at the same place (a network file system) and has this package
installed. Ray starts the processes, one on each GPU it is given, and forms their group; all the rest is as on
one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import torch

from tutelage.errors import ConfigError, Unavailable
from tutelage.training.job import Job
from tutelage.training.metrics import Progress, Run
from tutelage.training.rank import Listener, take_part

LOCAL = "local"


def train_on_ray(job: Job, progress: Progress, *, address: str, processes: int) -> dict[str, Any]:
    """Carry out a job in `processes` processes of the Ray cluster at `address`; `local` starts one here.

    Raises ConfigError when Ray is not installed, Unavailable when the cluster cannot be reached, TrainingError
    when a process fails.
    """
    try:
        import ray
        import ray.train.torch
        import ray.util.queue
    except ImportError as error:
        raise ConfigError(
            f"Ray Train is not installed: {error}", hint="pip install 'tutelage[cluster]'"
        ) from error
    _connect(ray, address, processes)
    try:
        listener = Listener(progress)
        news = ray.util.queue.Queue()
        hearing = Thread(target=_hear, args=(news.get, listener), name="ray-news", daemon=True)
        hearing.start()
        trainer = ray.train.torch.TorchTrainer(
            _take_part,
            train_loop_config={"job": str(job.write()), "processes": processes, "say": news.put},
            scaling_config=ray.train.ScalingConfig(
                num_workers=processes, use_gpu=torch.cuda.is_available() or address != LOCAL
            ),
            run_config=ray.train.RunConfig(name=job.run.name, storage_path=str(job.run / "ray")),
        )
        try:
            trainer.fit()
            failed = False
        except RuntimeError as error:
            failed = True
            print(error)
        news.put(None)
        hearing.join()
    finally:
        ray.shutdown()
    if failed:
        raise listener.failure(processes, str(job.run / "ray"))
    return Run(job.run, job.stage).manifest()


def _connect(ray: Any, address: str, processes: int) -> None:
    """Join the cluster, or start one on this machine with a core for each process."""
    try:
        if address == LOCAL:
            ray.init(num_cpus=processes + 1, include_dashboard=False, log_to_driver=False)
        else:
            ray.init(address=address, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"the Ray cluster at {address} cannot be reached: {error}",
            hint="start it with `ray start --head`",
        ) from error


def _take_part(config: dict[str, Any]) -> None:
    """What each of Ray's workers does."""
    take_part(Path(config["job"]), config["processes"], config["say"])


def _hear(get: Callable[[], dict[str, Any] | None], listener: Listener) -> None:
    while (news := get()) is not None:
        listener.hear(news)
