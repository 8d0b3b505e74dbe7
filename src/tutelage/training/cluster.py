"""A job carried out on a Ray cluster, by Ray Train.

Every machine of the cluster sees the home folder at the same place (a network file system) and has this package
installed. Ray starts the processes, each with a GPU of its own where the cluster has any, and forms their group;
all the rest is as on one machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tutelage.errors import ConfigError, Unavailable
from tutelage.training.job import Job
from tutelage.training.metrics import Progress, Run
from tutelage.training.rank import Listener, take_part

LOCAL = "local"


def train_on_ray(job: Job, progress: Progress, *, address: str, processes: int) -> dict[str, Any]:
    """Carry out a job in `processes` processes of the Ray cluster at `address`; `local` starts one here.

    Raises ConfigError when Ray is not installed or has too few GPUs, Unavailable when the cluster cannot be
    reached, TrainingError when a process fails.
    """
    try:
        import ray
        import ray.train.torch
        from ray.train import RunConfig, ScalingConfig, TrainingFailedError
        from ray.util.queue import Queue
    except ImportError as error:
        raise ConfigError(f"Ray is not usable: {error}", hint="pip install 'tutelage[cluster]'") from error
    listener = Listener(progress)
    with _connected(ray, address, processes):
        news = Queue()
        trainer = ray.train.torch.TorchTrainer(
            _take_part,
            train_loop_config={"job": str(job.write()), "processes": processes, "news": news},
            scaling_config=ScalingConfig(num_workers=processes, use_gpu=_gpus(ray, processes) > 0),
            run_config=RunConfig(name=job.run.name, storage_path=str(job.run / "ray")),
        )
        fitting = ThreadPoolExecutor(1, thread_name_prefix="ray").submit(trainer.fit)
        fitting.add_done_callback(lambda _: news.put(None))
        while (said := news.get()) is not None:
            listener.hear(said)
        try:
            fitting.result()
        except TrainingFailedError as error:
            raise listener.failure(processes, str(job.run / "ray")) from error
    return Run(job.run, job.stage).manifest()


@contextmanager
def _connected(ray: Any, address: str, processes: int) -> Iterator[None]:
    """Be a client of a cluster inside the block; a local one has a core for each process and ends with it."""
    try:
        quiet = {"log_to_driver": False, "logging_level": "warning"}
        if address == LOCAL:
            ray.init(num_cpus=processes + 1, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise Unavailable(
            f"the Ray cluster at {address} cannot be reached: {error}",
            hint="start it with `ray start --head`, or start one here with --ray local",
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _gpus(ray: Any, processes: int) -> int:
    """GPUs of the cluster. Raises ConfigError when it has some, but not one for each process."""
    found = int(ray.cluster_resources().get("GPU", 0))
    if 0 < found < processes:
        raise ConfigError(
            f"{processes} processes were asked for, and the cluster has {found} GPUs",
            hint="each process needs a GPU of its own: lower --processes, or add machines",
        )
    return found


def _take_part(settings: dict[str, Any]) -> None:
    """What each of Ray's workers does."""
    take_part(Path(settings["job"]), settings["processes"], settings["news"].put)
