"""The stages by hand, one run each."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.cli import main
from tutelage.errors import InvalidRequest, NotFound
from tutelage.improvement import Installation
from tutelage.improvement.inputs import find_adapter, find_start
from tutelage.models.loading import load_model, load_version
from tutelage.registry import Registry
from tutelage.store import Store

TINY = Path(__file__).parents[2] / "recipes" / "tiny"
QUICK = ["steps=2", "value.warmup_steps=1", "max_new_tokens=8", "held_out_prompts=4"]
Command = Callable[..., dict[str, Any]]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run a command in a home that holds the tiny data; returns its JSON."""
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path))

    def run(*arguments: str) -> dict[str, Any]:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["tutelage", *arguments, "--json"])
        with pytest.raises(SystemExit) as left:
            main()
        said = capfd.readouterr()
        assert left.value.code == 0, said.err
        result: dict[str, Any] = json.loads(said.out)
        return result

    run("import", "messages", str(TINY / "demonstrations.jsonl"))
    run("import", "ranked", str(TINY / "comparisons.jsonl"))
    return run


def test_stage_by_stage_to_a_version(command: Command, tmp_path: Path) -> None:
    planned = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--dry-run")
    assert planned["dialogues"] > 100
    assert not list((tmp_path / "runs").glob("*")), "a dry run leaves nothing behind"

    sft = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1")
    assert (sft["run"], sft["steps"]) == ("sft-0001", planned["steps"])
    reward = command("train", "reward", str(TINY / "reward.toml"), "--start", "sft-0001")
    assert reward["kind"] == "reward"
    small = [part for key in QUICK for part in ("--set", key)]
    ppo = command("train", "ppo", str(TINY / "ppo.toml"), "--reward", "reward-0001", *small)
    assert ppo["kl"]["before"] == 0

    watched = command(
        "train", "ppo", str(TINY / "ppo.toml"), "--gold", "reward-0001", *small, "--set", "gold.every=1"
    )
    assert [point["step"] for point in watched["over_optimisation"]["curve"]] == [0, 1, 2]
    assert watched["gold_gain"]["value"] == watched["reward_gain"]["value"], "the same model watches"
    dpo = command("train", "dpo", str(TINY / "dpo.toml"), "--start", "sft-0001", "--set", "max_steps=2")
    assert (dpo["run"], dpo["steps"]) == ("dpo-0001", 2)
    sides = ["--policy", "ppo-0001", "--policy", "dpo-0001", "--best-of", "1", "--best-of", "4"]
    compared = command("compare", str(TINY / "ppo.toml"), *sides, "--gold", "reward-0001", *small)
    rows = compared["policies"]
    assert list(rows) == ["sft", "ppo-0001", "dpo-0001", "best-of-1", "best-of-4"]
    assert (rows["sft"]["kl"], rows["sft"]["reward_win_rate"]["value"]) == (0, 0.5)
    assert rows["best-of-1"]["kl"] == 0
    assert rows["best-of-4"]["kl"] == pytest.approx(math.log(4) - 3 / 4)
    assert rows["best-of-4"]["reward"]["value"] > rows["best-of-1"]["reward"]["value"]

    command("versions", "publish", reward["folder"])
    command("versions", "publish", ppo["folder"])
    registry = Registry(tmp_path)
    assert registry.resolve("latest", kind="reward").run == "reward-0001"
    version = registry.resolve("latest")
    assert (version.run, version.snapshot is not None) == ("ppo-0001", True)

    again = command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--start", version.name)
    assert again["run"] == "sft-0002"
    assert json.loads((Path(again["folder"]) / "manifest.json").read_text())["parents"] == [version.name]


def test_a_model_that_was_fine_tuned_whole_is_the_base_of_what_follows(
    command: Command, tmp_path: Path
) -> None:
    quick = ("--set", "epochs=1", "--set", "max_steps=2")
    whole = command("train", "sft", str(TINY / "sft.toml"), *quick, "--set", "full=true")
    command("versions", "publish", whole["folder"])
    tuned = command("train", "sft", str(TINY / "sft.toml"), *quick, "--set", "model=v1")
    version = command("versions", "publish", tuned["folder"])
    assert (version["model"], version["parents"]) == ("v1", ["v1"])
    command("versions", "promote", "v2")
    exported = command("versions", "export", "v2", str(tmp_path / "out"), "--type", "f32")
    assert any(name.endswith("model.safetensors") for name in exported["files"])

    registry = Registry(tmp_path)
    served = load_version(registry.get("v2"), tmp_path, dtype="float32").model
    written = load_model(str(tmp_path / "out"), tmp_path, dtype="float32").model
    assert torch.equal(served.head, written.head)
    assert not torch.equal(served.head, load_model("tiny", tmp_path, dtype="float32").model.head)
    assert registry.get("v1").weights is not None


def test_reward_model_ppo_and_dpo_go_on_from_a_model_that_was_fine_tuned_whole(
    command: Command, tmp_path: Path
) -> None:
    """That model is the reference: there is no SFT adapter to name, and another base's is never taken."""
    command("train", "sft", str(TINY / "sft.toml"), "--set", "epochs=1", "--set", "max_steps=2")
    whole = command("train", "sft", str(TINY / "sft.toml"), "--set", "max_steps=2", "--set", "full=true")
    on_it = ("--set", f"model={command('versions', 'publish', whole['folder'])['name']}")
    quick = (*on_it, "--set", "members=1", "--set", "max_steps=2")
    command("train", "reward", str(TINY / "reward.toml"), *quick)
    small = [part for key in QUICK for part in ("--set", key)]
    ppo = command("train", "ppo", str(TINY / "ppo.toml"), *on_it, *small, "--set", "full=true")
    assert (ppo["run"], ppo["kl"]["before"]) == ("ppo-0001", 0)
    light = command("train", "ppo", str(TINY / "ppo.toml"), *on_it, *small)
    assert light["kl"]["before"] == 0
    command("train", "dpo", str(TINY / "dpo.toml"), *on_it, "--set", "max_steps=2", "--set", "full=true")
    sides = ["--policy", "ppo-0001", "--policy", "ppo-0002", "--policy", "dpo-0001"]
    rows = command("compare", str(TINY / "ppo.toml"), *on_it, *small, *sides)["policies"]
    assert rows["sft"]["kl"] == 0
    assert all(rows[name]["kl"] != 0 for name in ("ppo-0001", "ppo-0002", "dpo-0001"))
    version = command("versions", "publish", ppo["folder"])
    assert (version["model"], version["parents"], version["adapter"]) == ("v1", ["v1"], None)

    place = Installation(tmp_path, Store.open(tmp_path / "tutelage.db"), Registry(tmp_path))
    assert find_start(place, "tiny", "tiny") is None
    assert find_start(place, "sft-0001", "tiny") == tmp_path / "runs" / "sft-0001" / "adapter"
    for name, stage, model, error, says in (
        ("reward-0001", "reward", "tiny", InvalidRequest, "reward-0001 belongs to the base v1"),
        ("", "reward", "tiny", NotFound, "no finished reward run on tiny"),
        ("", "sft", "tiny", NotFound, "sft-0002 trained all weights"),
        ("v1", "sft", "tiny", NotFound, "v1 trained all weights"),
    ):
        with pytest.raises(error, match=says) as raised:
            find_adapter(place, name, stage, model)
        assert raised.value.hint
    place.store.close()
