"""PPO killed with SIGKILL in the middle of any phase of a step ends as if it had never been.

Rollouts are not kept in checkpoints: prompts, seeds and draws follow from the step's number, so an interrupted step
is made again, to the bit.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tutelage.datasets.splits import split
from tutelage.dialogue import Dialogue
from tutelage.errors import ModelError
from tutelage.training import ppo
from tutelage.training.checkpoints import State, load_newest, save
from tutelage.training.metrics import Run
from tutelage.training.ppo import train_ppo
from tutelage.training.ppo_recipe import GoldConfig, KLConfig, MixConfig, PPOConfig, ValueConfig
from tutelage.training.weights import Weights

CONFIG = PPOConfig(
    model="tiny",
    steps=6,
    prompts_per_step=6,
    minibatches=2,
    inner_epochs=2,
    max_new_tokens=6,
    held_out=0.5,
    learning_rate=2e-3,
    warmup_steps=2,
    checkpoint_every=2,
    kl=KLConfig(target=3.0, horizon=20),
    value=ValueConfig(warmup_steps=1),
    mix=MixConfig(coefficient=0.1, demonstrations_per_step=4),
    gold=GoldConfig(every=2, noise=100.0),
)
Train = Callable[[Path], dict[str, Any]]


@pytest.fixture(scope="module", params=[False, True], ids=["adapter", "full"])
def train(
    request: pytest.FixtureRequest,
    home: Path,
    prompts: list[Dialogue],
    demonstrations: list[Dialogue],
    stages: tuple[Path, Path],
) -> Train:
    config = CONFIG.model_copy(update={"full": True, "learning_rate": 5e-4} if request.param else {})

    def run(folder: Path) -> dict[str, Any]:
        opened = Run.open(folder, "ppo", config.model_dump(), resume=True)
        inputs = {"start": stages[0], "reward": stages[1], "gold": stages[1]}
        return train_ppo(config, prompts, opened, home, **inputs, demonstrations=demonstrations)

    return run


@pytest.fixture(scope="module")
def straight(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("straight") / "run"
    train(folder)
    return folder


def outcome(folder: Path) -> dict[str, Any]:
    """All that a run leaves behind, its times apart."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    manifest = json.loads((folder / "manifest.json").read_text())
    del manifest["evaluation"]["time"]
    return {
        "weights": {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*.safetensors")},
        "metrics": [{k: v for k, v in line.items() if not k.startswith("seconds")} for line in lines],
        "manifest": manifest,
    }


def killed_at(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, call: int) -> None:
    """From now on, the process is killed as it makes this call of this function."""
    plain = getattr(owner, name)
    seen = 0

    def fatal(*args: Any, **settings: Any) -> Any:
        nonlocal seen
        seen += 1
        if seen == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return plain(*args, **settings)

    monkeypatch.setattr(owner, name, fatal)


@pytest.mark.parametrize(
    ("owner", "name", "call"),
    [
        (ppo, "sample", 1),  # before anything was written
        (ppo, "sample", 4),  # a step after a checkpoint, while it samples
        (ppo, "score", 4),
        (ppo, "value_gradients", 4 * 3 + 2),  # between two minibatches
        (ppo, "policy_gradients", 4 * 3 + 3),  # in the second inner epoch
        (Weights, "follow", 4 * 4),  # after the last update of a step
        (Run, "log", 4),
        (ppo, "sample_scores", 5),  # while the gold reward model looks
        (ppo, "compare", 1),  # when all steps are done
    ],
)
def test_killed_in_any_phase_it_ends_the_same(
    train: Train,
    straight: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    owner: object,
    name: str,
    call: int,
) -> None:
    folder = tmp_path / "run"
    child = os.fork()
    if child == 0:
        try:
            killed_at(monkeypatch, owner, name, call)
            train(folder)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    train(folder)
    assert outcome(folder) == outcome(straight)


def test_what_a_run_needs_to_go_on_is_in_its_checkpoint(
    train: Train, straight: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """KL controller, health, the curve and the best moment; the optimizers' moments; the average."""
    monkeypatch.setattr(ppo, "compare", lambda *args, **settings: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        train(tmp_path / "run")
    state = load_newest(tmp_path / "run")
    assert state is not None
    betas = [line["kl_coefficient"] for line in outcome(straight)["metrics"]]
    assert state.step == 4
    assert state.scalars["beta"] == betas[4] != betas[0]
    assert [point["step"] for point in state.scalars["watch"]["curve"]] == [0, 2, 4]
    parts = {name.partition("/")[0] for name in state.tensors}
    assert parts >= {
        "policy",
        "value",
        "average",
        "best",
        "value_head",
        "policy_optimizer",
        "value_optimizer",
    }


def test_a_checkpoint_of_other_content_is_refused_with_a_way_out(
    train: Train, straight: Path, tmp_path: Path
) -> None:
    shutil.copy(straight / "config.json", tmp_path)
    save(tmp_path, State(2, {}, {"beta": 0.1}))
    with pytest.raises(ModelError, match="does not hold what this version") as raised:
        train(tmp_path)
    assert raised.value.where == str(tmp_path)
    assert "checkpoint-*" in raised.value.hint


def test_a_run_whose_held_out_prompts_were_taken_back_begins_anew(
    home: Path,
    prompts: list[Dialogue],
    stages: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """What the SFT model said to them would stand beside what the policy says to others."""
    value = ValueConfig(warmup_steps=1)
    config = PPOConfig(model="tiny", steps=2, max_new_tokens=4, held_out=0.5, checkpoint_every=1, value=value)

    def go_on(prompts: list[Dialogue]) -> list[int]:
        run = Run.open(tmp_path, "ppo", config.model_dump(), resume=True)
        done: list[int] = []
        run.progress = lambda stage, step, total, metrics: done.append(step)
        train_ppo(config, prompts, run, home, start=stages[0], reward=stages[1])
        return done

    def break_off() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(ppo, "compare", lambda *args, **settings: 1 / 0)
            go_on(prompts)

    train, held_out = split(prompts, config.held_out)
    with pytest.raises(ZeroDivisionError):
        break_off()
    assert go_on([*train[1:], *held_out[1:]]) == [1, 2]
    assert "begins anew" in caplog.text
    shutil.rmtree(tmp_path)
    with pytest.raises(ZeroDivisionError):
        break_off()
    assert go_on([*train[1:], *held_out]) == [2], "those that are trained on may go"
