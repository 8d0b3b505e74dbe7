"""A PPO step: seconds and memory, beside TRL's PPOTrainer on the same model, prompts and lengths.

    python benchmarks/ppo.py --peer-python PEER/bin/python --peer-path TRL112

The peer's environment (1.12.0 is TRL's last release with a PPO trainer):

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 datasets accelerate
    PEER/bin/pip install --no-deps --target TRL112 trl==1.12.0

Both train LoRA of rank 16 on every linear layer of the built-in model's policy, on 16 or 64 prompts of 64 tokens, one
completion of 48 tokens each that no end token cuts short, one inner epoch of 4 minibatches. Reference, value and
reward model take part on both sides: here as adapters on the one base, there as the bare base and two copies. TRL
runs as it comes (fp32 weights, bf16 autocast, gradient checkpointing) and at its fastest (all bf16, no
checkpointing). Each runs in a process of its own, in turn, with the same threads; the first step of each is thrown
away, then medians. Memory is the process's peak.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets them; read when torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "active")

import torch

from tutelage.config import home
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.training.actors import POLICY, REFERENCE, REWARD, VALUE, Learners, Models
from tutelage.training.memory import keep_freed_memory
from tutelage.training.ppo import Task, take_step
from tutelage.training.ppo_recipe import AverageConfig, PPOConfig, ValueConfig, seeds_of_step
from tutelage.training.reward_model import RewardModel, ValueModel
from tutelage.training.weights import adapter_weights

PROMPT, COMPLETION = 64, 48
QUIET = {
    "HF_HUB_OFFLINE": "1",
    "HF_DATASETS_OFFLINE": "1",
    "TOKENIZERS_PARALLELISM": "false",
    "TRL_EXPERIMENTAL_SILENCE": "1",
    "PYTHONWARNINGS": "ignore",
}
TEXT = (
    "The committee met on Tuesday to decide which of the three proposals would be sent to the council, and whether the "
    "river path should stay open in winter. Several members asked for figures; nobody had brought any. "
)


def prompts_of(count: int, tokenizer: Any) -> list[list[int]]:
    """Different prompts of exactly 64 tokens."""
    ids = tokenizer.encode(TEXT * 20, special=False)
    return [ids[start : start + PROMPT] for start in range(count)]


def ours(batch: int, steps: int) -> dict[str, Any]:
    """Steps of the recipe's own code."""
    keep_freed_memory()
    loaded = load_model("builtin", home())
    model = loaded.model
    for name in (REFERENCE, POLICY, VALUE, REWARD):
        model.add_adapter(name, AdapterShape(16, 32), seed=0)
    value, reward = (
        ValueModel(name, ScalarHead(model.width, seed=0).to(model.device)) for name in (VALUE, REWARD)
    )
    prompts = prompts_of(batch, loaded.renderer.tokenizer)
    loaded.renderer.stop_ids = frozenset()  # every completion has its whole length
    policy, reference = (adapter_weights(model, name) for name in (POLICY, REFERENCE))
    models = Models(loaded, policy, reference, value, RewardModel((reward,)))
    config = PPOConfig(
        steps=steps,
        prompts_per_step=batch,
        max_new_tokens=COMPLETION,
        minibatches=4,
        learning_rate=3e-6,
        value=ValueConfig(learning_rate=3e-6, warmup_steps=0),
        average=AverageConfig(decay=0.0),
    )
    learners = Learners.of(models, policy_rate=3e-6, value_rate=3e-6)
    made = []
    for step in range(steps):
        began = time.perf_counter()
        metrics = take_step(
            config, models, learners, Task(step, prompts, seeds_of_step(config, step), []), beta=0.05
        )
        metrics["seconds"] = time.perf_counter() - began
        made.append(metrics)
    timed = made[1:]
    phases = {
        key: statistics.median(each[f"seconds_{key}"] for each in timed)
        for key in ("generate", "score", "update")
    }
    base = sum(
        buffer.numel() for name, buffer in model.named_buffers() if not name.endswith(("cos", "sin", "head"))
    )
    adapters = sum(parameter.numel() for parameter in model.parameters())
    return {
        "seconds": statistics.median(each["seconds"] for each in timed),
        **phases,
        "gigabytes": _peak(),
        "parameters": (base + adapters) / base,
    }


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def theirs(options: argparse.Namespace, folder: Path, batch: int, kind: str) -> dict[str, Any]:
    """The peer's steps, in a process of its own."""
    script = Path(__file__).parent / "peers" / "trl_ppo.py"
    environment = os.environ | QUIET | {"PYTHONPATH": str(options.peer_path)}
    command = [
        options.peer_python,
        str(script),
        str(folder),
        kind,
        str(options.steps),
        str(torch.get_num_threads()),
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the peer failed:\n{done.stderr[-3000:]}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", help="the peer's interpreter; without it, only ours is measured")
    parser.add_argument("--peer-path", type=Path, help="where trl 1.12.0 was installed")
    parser.add_argument("--batches", type=int, nargs="*", default=[16, 64], help="prompts a step")
    parser.add_argument(
        "--steps", type=int, default=4, help="steps of each, of which the first does not count"
    )
    parser.add_argument("--alone", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        print(json.dumps(ours(options.alone, options.steps)))
        return
    results: dict[str, Any] = {}
    print(f"{'prompts':>8}{'':>14}{'s/step':>9}{'generate':>10}{'score':>8}{'update':>8}{'GB':>7}")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        loaded = load_model("builtin", home())
        save_weights(loaded.model, folder / "weights", locate("builtin", home()))
        for batch in options.batches:
            (folder / "prompts.json").write_text(json.dumps(prompts_of(batch, loaded.renderer.tokenizer)))
            command = [sys.executable, __file__, "--alone", str(batch), "--steps", str(options.steps)]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            rows = {"ours": json.loads(done.stdout.splitlines()[-1])}
            for kind in ("default", "fastest") if options.peer_python else ():
                rows[f"TRL {kind}"] = theirs(options, folder, batch, kind)
            for label, row in rows.items():
                parts = "".join(
                    f"{row[key]:>{width}.1f}"
                    for key, width in (("generate", 10), ("score", 8), ("update", 8))
                )
                print(f"{batch:>8}{label:>14}{row['seconds']:>9.1f}{parts}{row['gigabytes']:>7.1f}")
            mine = rows.pop("ours")
            results |= {
                f"share_generating_{batch}": mine["generate"] / mine["seconds"],
                "parameters": mine["parameters"],
            }
            for label, row in rows.items():
                kind = label.removeprefix("TRL ")
                results[f"faster_than_{kind}_{batch}"] = row["seconds"] / mine["seconds"]
                results[f"memory_of_{kind}_{batch}"] = mine["gigabytes"] / row["gigabytes"]
    print(json.dumps(results))


if __name__ == "__main__":
    main()
