"""Two processes train what one would, go on where they were killed, and fail with one plain message."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from tutelage.dialogue import Comparison, Dialogue
from tutelage.errors import ConfigError, TrainingError
from tutelage.improvement import recording
from tutelage.store import Store, export
from tutelage.store.imports import import_comparison, import_dialogue
from tutelage.training import distributed
from tutelage.training.cluster import train_on_ray
from tutelage.training.distributed import World, collect, joined, share
from tutelage.training.job import SCHEMAS, Job, Stage, train
from tutelage.training.metrics import Run, no_progress
from tutelage.training.processes import train_in_processes
from tutelage.training.rank import speak

RECIPES: dict[Stage, dict[str, Any]] = {
    "sft": {"epochs": 8, "batch_tokens": 200, "learning_rate": 1e-2, "held_out": 0.2, "checkpoint_every": 2},
    "reward": {"batch_tokens": 200, "members": 2, "held_out": 0.2, "evaluate_every": 2},
    "dpo": {"batch_tokens": 200, "held_out": 0.2},
    "ppo": {
        "steps": 3,
        "prompts_per_step": 6,
        "minibatches": 2,
        "max_new_tokens": 8,
        "held_out": 0.3,
        "value": {"warmup_steps": 1},
        "mix": {"coefficient": 0.5, "demonstrations_per_step": 5},
    },
}

both = pytest.mark.parametrize("full", [False, True], ids=["adapter", "full"])


@pytest.fixture(scope="module")
def snapshot(
    home: Path, demonstrations: list[Dialogue], comparisons: list[Comparison], prompts: list[Dialogue]
) -> Path:
    store = Store.open(home / "tutelage.db")
    with store.write() as tx:
        for dialogue in demonstrations:
            import_dialogue(tx, dialogue)
        for comparison in comparisons:
            import_comparison(tx, comparison)
    made = export.snapshot(store, home)
    store.close()
    return made.path


@pytest.fixture(autouse=True)
def one_thread_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


def job(stage: Stage, home: Path, snapshot: Path, folder: Path, **inputs: Path | None) -> Job:
    """A job of a run that has been opened; `inputs` are `start` and `reward`."""
    config = SCHEMAS[stage].model_validate({"model": "tiny", **RECIPES[stage]})
    Run.open(folder, stage, config.model_dump(), resume=False)
    folders: dict[str, Any] = {"start": None, "reward": None, **inputs}
    return Job(stage=stage, config=config, home=home, run=folder, snapshot=snapshot, lineage={}, **folders)


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """All that a run made."""
    return {
        f"{file.relative_to(folder)}/{name}": tensor
        for file in sorted(folder.rglob("*.safetensors"))
        for name, tensor in load_file(file).items()
    }


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def assert_equal(one: Path, two: Path) -> None:
    first, second = weights(one), weights(two)
    assert first
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], atol=1e-5, rtol=1e-4, msg=name)
    for ours, theirs in zip(metrics(one), metrics(two), strict=True):
        assert ours.keys() == theirs.keys()
        for key in ours:
            if not key.startswith("seconds"):
                assert ours[key] == pytest.approx(theirs[key], abs=1e-4, rel=1e-4), key


PAIR = """
import sys
from pathlib import Path
from tutelage.training.distributed import joined
from tutelage.training.rank import take_part
with joined(2):
    for job in sys.stdin:
        take_part(Path(job.strip()), 2, lambda news: None)
        print("done", flush=True)
"""


@pytest.fixture(scope="module")
def pair() -> Iterator[Callable[[Job], None]]:
    """Carries out jobs in two processes, which take one after the other: most of a short job is their start."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = str(free.getsockname()[1])
    common = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PAIR],
            env={**common, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in "01"
    ]

    def carry_out(job: Job) -> None:
        file = job.write()
        for process in processes:
            print(file, file=process.stdin, flush=True)
        assert [process.stdout.readline() for process in processes] == ["done\n"] * 2

    yield carry_out
    for process in processes:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def alone(home: Path, snapshot: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fine-tuning run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "sft"
    train(job("sft", home, snapshot, folder), no_progress)
    return folder


def test_two_processes_fine_tune_what_one_does(
    home: Path, snapshot: Path, alone: Path, tmp_path: Path
) -> None:
    seen: list[tuple[str, int, int]] = []
    manifest = train_in_processes(
        job("sft", home, snapshot, tmp_path), lambda *news: seen.append(news[:3]), processes=2
    )
    assert_equal(alone, tmp_path)
    total = manifest["evaluation"]["steps"]
    assert seen == [("sft", step + 1, total) for step in range(total)]
    before, after = (json.loads((f / "manifest.json").read_text())["evaluation"] for f in (alone, tmp_path))
    assert before == pytest.approx(after, abs=1e-5)


@both
def test_split_layers_train_as_whole_ones(
    home: Path,
    snapshot: Path,
    pair: Callable[[Job], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
) -> None:
    """Two processes that hold a half of every layer each; two others go on where they were killed."""
    recipe = RECIPES["sft"] | {"full": full, "shard": True, "learning_rate": 1e-3}
    monkeypatch.setitem(RECIPES, "sft", recipe)
    train(job("sft", home, snapshot, tmp_path / "one"), no_progress)
    work = job("sft", home, snapshot, tmp_path / "two")

    def kill_one(stage: str, done: int, total: int, news: dict[str, float]) -> None:
        if done == 3:
            os.kill(ranks(work.run)[1], signal.SIGKILL)

    with pytest.raises(TrainingError, match="one of the 2 processes ended"):
        train_in_processes(work, kill_one, processes=2)
    assert list(work.run.glob("checkpoint-*"))
    pair(work)
    assert_equal(tmp_path / "one", tmp_path / "two")


@pytest.fixture(scope="module")
def judge(home: Path, snapshot: Path, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A reward run of one process."""
    folder = tmp_path_factory.mktemp("alone") / "reward"
    train(job("reward", home, snapshot, folder, start=alone / "adapter"), no_progress)
    return folder


def test_two_processes_train_the_reward_model_that_one_does(
    home: Path, snapshot: Path, pair: Callable[[Job], None], alone: Path, judge: Path, tmp_path: Path
) -> None:
    pair(job("reward", home, snapshot, tmp_path, start=alone / "adapter"))
    assert_equal(judge, tmp_path)


@both
def test_two_processes_take_the_dpo_steps_that_one_does(
    home: Path,
    snapshot: Path,
    pair: Callable[[Job], None],
    alone: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
) -> None:
    monkeypatch.setitem(RECIPES, "dpo", RECIPES["dpo"] | {"full": full})
    train(job("dpo", home, snapshot, tmp_path / "one", start=alone / "adapter"), no_progress)
    pair(job("dpo", home, snapshot, tmp_path / "two", start=alone / "adapter"))
    assert_equal(tmp_path / "one", tmp_path / "two")


@both
def test_two_processes_take_the_ppo_steps_that_one_does(
    home: Path,
    snapshot: Path,
    pair: Callable[[Job], None],
    alone: Path,
    judge: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    full: bool,
) -> None:
    """They draw the same completions, whiten over the whole batch and steer by the same KL."""
    monkeypatch.setitem(RECIPES, "ppo", RECIPES["ppo"] | {"full": full})
    inputs = {"start": alone / "adapter", "reward": judge / "adapter"}
    train(job("ppo", home, snapshot, tmp_path / "one", **inputs), no_progress)
    pair(job("ppo", home, snapshot, tmp_path / "two", **inputs))
    assert_equal(tmp_path / "one", tmp_path / "two")


def test_one_goes_on_where_two_were_killed(home: Path, snapshot: Path, alone: Path, tmp_path: Path) -> None:
    """A process dies by SIGKILL: the other ends too, the error says so, and one process takes up the run."""
    work = job("sft", home, snapshot, tmp_path)

    def kill_one(stage: str, done: int, total: int, news: dict[str, float]) -> None:
        if done == 3:
            os.kill(ranks(tmp_path)[1], signal.SIGKILL)

    with pytest.raises(TrainingError, match="one of the 2 processes ended") as raised:
        train_in_processes(work, kill_one, processes=2)
    assert "--resume" in raised.value.hint
    assert ranks(tmp_path) == {}
    train(work, no_progress)
    assert_equal(alone, tmp_path)


def ranks(run: Path) -> dict[int, int]:
    """Process ids of a run's processes, by rank."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (folder / "cmdline").read_bytes()
            environment = dict(
                pair.split(b"=", 1) for pair in (folder / "environ").read_bytes().split(b"\0") if b"=" in pair
            )
        except OSError:
            continue
        if (
            b"tutelage.training.rank" in arguments
            and str(run).encode() in arguments
            and b"RANK" in environment
        ):
            found[int(environment[b"RANK"])] = int(folder.name)
    return found


def test_an_error_in_one_process_ends_all_with_its_message(
    home: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "sft", {"max_tokens": 16})
    with pytest.raises(TrainingError, match="no demonstration of at most 16 tokens"):
        train_in_processes(job("sft", home, snapshot, tmp_path), no_progress, processes=2)
    assert ranks(tmp_path) == {}


def test_a_process_says_a_line_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them write into one pipe: what comes in two writes may stand within another one's line."""
    written: list[str] = []
    monkeypatch.setattr(sys.stdout, "write", written.append)
    speak({"progress": ["sft", 1, 2, {}]})
    assert written == ['{"progress": ["sft", 1, 2, {}]}\n']


def test_who_interrupts_it_ends_all(home: Path, snapshot: Path, tmp_path: Path) -> None:
    open_files: list[str] = []

    def interrupt(*news: object) -> None:
        launcher = Path(f"/proc/{ranks(tmp_path)[0]}/stat").read_text().rpartition(")")[2].split()[1]
        for each in Path(f"/proc/{launcher}/fd").iterdir():
            with suppress(FileNotFoundError):
                open_files.append(os.readlink(each))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), recording.alone(tmp_path):
        train_in_processes(job("sft", home, snapshot, tmp_path), interrupt, processes=2)
    assert ranks(tmp_path) == {}
    assert str(tmp_path / ".lock") in open_files, "killed alone, this process would leave them at work"
    with recording.alone(tmp_path):
        pass


needs_ray = pytest.mark.skipif(
    find_spec("ray") is None, reason="Ray is not installed: pip install 'tutelage[cluster]'"
)


@needs_ray
def test_two_processes_of_a_ray_cluster_fine_tune_what_one_does(
    home: Path, snapshot: Path, alone: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    work = job("sft", home, snapshot, tmp_path)
    train_on_ray(work, lambda _, done, *rest: seen.append(done), address="local", processes=2)
    assert_equal(alone, tmp_path)
    assert seen == list(range(1, len(seen) + 1))


@needs_ray
def test_an_error_on_a_ray_cluster_is_the_same_error(
    home: Path, snapshot: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RECIPES, "sft", {"max_tokens": 16})
    with pytest.raises(TrainingError, match="no demonstration of at most 16 tokens"):
        train_on_ray(job("sft", home, snapshot, tmp_path), no_progress, address="local", processes=2)


@pytest.mark.skipif(find_spec("ray") is not None, reason="Ray is installed")
def test_without_ray_it_is_said_how_to_install_it(home: Path, snapshot: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as raised:
        train_on_ray(job("sft", home, snapshot, tmp_path), no_progress, address="local", processes=2)
    assert "tutelage[cluster]" in raised.value.hint


def test_fewer_processes_than_asked_for_do_not_train(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    with pytest.raises(TrainingError, match="2 processes were asked for, and 1 came up"), joined(2):
        pass


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_shares_are_a_partition_of_even_weight(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    items = [("a", 3), ("b", 9), ("c", 1), ("d", 1), ("e", 4)]
    parts = []
    for rank in range(size):
        monkeypatch.setattr(distributed, "world", lambda rank=rank: World(rank, size))
        parts.append(share(items, lambda item: item[1]))
    assert Counter(item for part in parts for item in part) == Counter(items)
    assert max(sum(weight for _, weight in part) for part in parts) <= max(9, 18 // size)
    assert all(part == [item for item in items if item in part] for part in parts)


def test_alone_everything_is_collected_in_its_place() -> None:
    assert collect([(1, "b"), (0, "a")], 2) == ["a", "b"]
