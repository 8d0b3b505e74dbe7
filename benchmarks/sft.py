"""Supervised fine-tuning: trained tokens a second and peak memory, beside TRL's SFTTrainer on the very same tokens.

    python benchmarks/sft.py --peer-python PEER/bin/python [--rounds 3]

The peer's environment:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 trl==1.16.0 datasets

Both train LoRA of rank 16 on every linear layer of the built-in model, with the same threads, the loss on every token.
The peer runs as it comes (fp32 weights, bf16 autocast), then with its C allocator tuned, each beside us. Two settings:
8 sequences of 256 tokens a step; and 16 dialogues a step of lengths as in real data, which the peer pads to the longest
of each 8 and which stand one after the other here. Programs take turns step by step; the first step of each is thrown
away, then medians. The last lines set our step against the processor: its rate of bf16 products, measured in between,
and 4 N floating-point operations a token for N weights (there are no gradients of weights but the adapter's).
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from paced import ALLOCATOR, Program, serve

from tutelage.config import home
from tutelage.models.adapters import AdapterShape
from tutelage.models.loading import load_model
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.rendering import Rendered
from tutelage.tokenizer import load_tokenizer
from tutelage.training.memory import keep_freed_memory
from tutelage.training.optimizer import AdamW, update
from tutelage.training.sft import ADAPTER, accumulate_gradients
from tutelage.training.weights import new_adapter

# Every twentieth of the lengths, in tokens, of 96 dialogues of the Open Assistant trees with at most 512 tokens.
LENGTHS = (66, 130, 146, 164, 194, 226, 243, 254, 269, 295, 306, 318, 337, 346, 361, 374, 420, 455, 471, 489)
VOCABULARY = 49_152


@dataclass(frozen=True)
class Setting:
    """Lengths of a step's sequences, and how many the peer takes at once."""

    name: str
    lengths: tuple[tuple[int, ...], ...]
    peer_batch: int = 8

    def tokens(self) -> float:
        return statistics.median(sum(step) for step in self.lengths[1:])


def settings(rounds: int) -> list[Setting]:
    generator = random.Random(0)
    real = tuple(tuple(generator.choices(LENGTHS, k=16)) for _ in range(rounds + 1))
    return [Setting("8 x 256", ((256,) * 8,) * (rounds + 1)), Setting("real lengths", real)]


def plan(setting: Setting, options: argparse.Namespace, pad_id: int, output: str) -> dict[str, Any]:
    generator = random.Random(1)
    steps = [
        [[generator.randrange(VOCABULARY) for _ in range(length)] for length in step]
        for step in setting.lengths
    ]
    return {
        "steps": steps,
        "batch": setting.peer_batch,
        "threads": options.threads,
        "pad_id": pad_id,
        "output": output,
        "home": str(options.home),
    }


def train(file: Path) -> None:
    """Our side: a paced program."""
    wanted = json.loads(file.read_text(encoding="utf-8"))
    torch.set_num_threads(wanted["threads"])
    keep_freed_memory()
    model = load_model("builtin", Path(wanted["home"])).model
    weights = new_adapter(model, ADAPTER, AdapterShape(16, 32), seed=0)
    optimizer = AdamW([(weights.parameters, 1e-4)])
    steps = iter(wanted["steps"])

    def step() -> dict[str, Any]:
        examples = [Rendered(ids, [True] * len(ids)) for ids in next(steps)]
        began = time.perf_counter()
        loss, _ = accumulate_gradients(weights, examples, 2048)
        update(optimizer, loss, max_norm=1.0, where="benchmark")
        seconds = time.perf_counter() - began
        return {
            "seconds": seconds,
            "loss": loss,
            "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    serve(step)


def measure(
    setting: Setting, options: argparse.Namespace, weights: Path, pad_id: int
) -> dict[str, dict[str, float]]:
    """Median seconds, peak memory and first loss of each program."""
    file = weights.parent / f"{setting.name.replace(' ', '')}.json"
    file.write_text(json.dumps(plan(setting, options, pad_id, str(weights.parent / "out"))), encoding="utf-8")
    peer = Path(__file__).parent / "peers" / "trl_sft.py"
    said: dict[str, list[dict[str, Any]]] = {"tutelage": []}
    rates = []
    kinds: dict[str, dict[str, str]] = {"TRL": {}, "TRL, allocator tuned": ALLOCATOR}
    for kind, allocator in kinds.items():  # one after the other: both do not fit in memory
        ours = Program(sys.executable, Path(__file__), ["--train", str(file)], {})
        theirs = Program(options.peer_python, peer, [str(weights), str(file)], allocator)
        pairs = []
        for _ in range(options.rounds + 1):
            pairs.append((ours.step(), theirs.step()))
            rates.append(product_rate(options.threads))
        ours.close()
        theirs.close()
        said["tutelage"] += [each for each, _ in pairs[bool(said["tutelage"]) :]]
        said[kind] = [each for _, each in pairs]
    return {
        name: {
            "tokens_per_second": setting.tokens() / statistics.median(each["seconds"] for each in steps[1:]),
            "peak_mb": steps[-1]["peak"],
            "first_loss": steps[0]["loss"],
        }
        for name, steps in said.items()
    } | {"machine": {"flops": statistics.median(rates)}}


def product_rate(threads: int) -> float:
    """Floating-point operations a second of a large bf16 product."""
    torch.set_num_threads(threads)
    a, b = torch.randn(2048, 2048).bfloat16(), torch.randn(2048, 2048).bfloat16()
    times = []
    for _ in range(5):
        began = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - began)
    return float(2 * 2048**3 / statistics.median(times))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--peer-python")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--home", type=Path, default=home())
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.train:
        train(options.train)
        return
    loaded = load_model("builtin", options.home)
    size = sum(
        each.numel() for name, each in loaded.model.named_buffers() if name not in ("head", "cos", "sin")
    )
    ratios: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "model"
        save_weights(loaded.model, weights, locate("builtin", options.home))
        pad_id = load_tokenizer(locate("builtin", options.home)).pad_id
        del loaded
        for setting in settings(options.rounds):
            found = measure(setting, options, weights, pad_id)
            machine = found.pop("machine")["flops"]
            ours = found["tutelage"]
            print(f"\n{setting.name}: {setting.tokens():.0f} tokens a step")
            print(f"{'':24}{'tokens/s':>10}{'ours':>8}{'peak MB':>10}{'ours':>8}{'first loss':>12}")
            for name, each in found.items():
                faster = ours["tokens_per_second"] / each["tokens_per_second"]
                smaller = ours["peak_mb"] / each["peak_mb"]
                print(
                    f"{name:24}{each['tokens_per_second']:>10.0f}{faster:>7.2f}x{each['peak_mb']:>10.0f}"
                    f"{smaller:>7.2f}x{each['first_loss']:>12.4f}"
                )
                if name != "tutelage":
                    ratios[f"{setting.name}, tokens/s over {name}"] = round(faster, 2)
                    ratios[f"{setting.name}, peak memory over {name}"] = round(smaller, 2)
            share = 4 * size * ours["tokens_per_second"] / machine
            ratios[f"{setting.name}, share of the product rate"] = round(share, 2)
            print(f"products run at {machine / 1e9:.0f} GFLOP/s; training uses {share:.0%} of that")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
