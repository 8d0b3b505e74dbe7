"""Training a reward model: pairs a second, beside TRL's RewardTrainer on the very same pairs.

    python benchmarks/reward.py --peer-python PEER/bin/python [--comparisons FILE]

The peer's environment:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 transformers==5.23.0 peft==0.21.2 trl==1.16.0 datasets

Both train LoRA of rank 16 on every linear layer and a scalar head, on the built-in model in the machine's fastest
dtype, with the same threads and the same allocator settings. One step holds the C(K, 2) pairs of some prompts: here
each prompt and each completion is computed once, there every pair brings its own two copies: p + K c tokens against
K (K - 1) (p + c). The peer takes as many pairs a forward pass as fit into memory, and accumulates. Steps alternate
between the two in one run; the first of each is thrown away, then medians. Before that, both compute the loss of the
same pairs with the same weights in fp32, and must agree to 1e-4.

Prompts and completions are made up, of common words, around --prompt and --completion tokens; with --comparisons they
are read from a JSONL of comparisons (`tutelage export comparisons`), of which those with K candidates are taken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import torch
from paced import ALLOCATOR, Program
from safetensors.torch import save_file

from tutelage.config import home
from tutelage.datasets.preference import PreferenceExample, render_comparisons
from tutelage.dialogue import Comparison, Message
from tutelage.models.adapters import AdapterShape
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.rendering import Renderer
from tutelage.training.optimizer import AdamW, update
from tutelage.training.reward import accumulate_gradients
from tutelage.training.reward_model import ValueModel

WORDS = """the of and to in that is was for it with as his on be at by had not are but from or have an they which one
you were all her she there would their we him been has when who will no more if out so up said what its about than into
them can only other time new some could these two may first then do any like my now over such our man me"""


@dataclass(frozen=True)
class Setting:
    """How many candidates, how many prompts a step, how many pairs the peer takes at once."""

    candidates: int
    prompts: int
    peer_batch: int


SETTINGS = (Setting(4, 2, 6), Setting(9, 1, 9))


def made_up(setting: Setting, steps: int, renderer: Renderer, lengths: tuple[int, int]) -> list[Comparison]:
    """Comparisons of common words, every candidate ranked."""
    generator = random.Random(setting.candidates)

    def text(tokens: int) -> str:
        return " ".join(generator.choices(WORDS.split(), k=int(tokens * generator.uniform(0.75, 1.25))))

    prompt, completion = lengths
    return [
        Comparison.from_ranking(
            (Message("user", text(prompt - 10)),),
            [text(completion - 1) for _ in range(setting.candidates)],
            [[index] for index in range(setting.candidates)],
        )
        for _ in range(steps * setting.prompts)
    ]


def from_file(file: Path, setting: Setting, count: int) -> list[Comparison]:
    """The first comparisons of a file that have K candidates; their order stands for the ranking."""
    found = []
    for line in file.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        if len(row["candidates"]) == setting.candidates:
            prompt = tuple(Message(each["role"], each["content"]) for each in row["prompt"])
            groups = [[index] for index in range(setting.candidates)]
            found.append(Comparison.from_ranking(prompt, row["candidates"], groups))
    if len(found) < count:
        raise SystemExit(
            f"{file} holds {len(found)} comparisons of {setting.candidates}, and {count} are needed"
        )
    return found[:count]


def pairs_of(examples: Sequence[PreferenceExample]) -> list[dict[str, list[int]]]:
    """Every judged pair as the peer reads it."""
    return [
        {
            "chosen_ids": example.prompt_ids + example.completions[better],
            "rejected_ids": example.prompt_ids + example.completions[worse],
        }
        for example in examples
        for better, worse in combinations(range(len(example.completions)), 2)
    ]


class Ours:
    """One member that trains step by step."""

    def __init__(self, loaded: LoadedModel, head_file: Path) -> None:
        self.model = loaded.model
        self.model.add_adapter("reward", AdapterShape(16, 32), seed=0)
        self.member = ValueModel("reward", ScalarHead(self.model.width, seed=0))
        save_file({"weight": self.member.head.weight.detach().contiguous()}, head_file)
        parameters = self.model.adapter_parameters("reward")
        self.optimizer = AdamW([(parameters, 1e-4), (self.member.head.parameters(), 1e-4)])

    def step(self, examples: Sequence[PreferenceExample]) -> tuple[float, float]:
        """Seconds and loss."""
        began = time.perf_counter()
        loss, _ = accumulate_gradients(self.model, self.member, examples, 4096)
        update(self.optimizer, loss, max_norm=1.0, where="benchmark")
        return time.perf_counter() - began, loss


def measure(
    options: argparse.Namespace, setting: Setting, folder: Path, *, dtype: str, rounds: int
) -> dict[str, float]:
    """Medians of both sides for one K; in float32, the losses of a first step alone."""
    loaded = load_model("builtin", options.home, dtype=dtype)
    weights = folder / dtype
    if not weights.exists():
        save_weights(loaded.model, weights, locate("builtin", options.home))
    count = setting.prompts * (rounds + 1)
    comparisons = (
        from_file(options.comparisons, setting, count)
        if options.comparisons
        else made_up(setting, rounds + 1, loaded.renderer, (options.prompt, options.completion))
    )
    examples = render_comparisons(comparisons, loaded.renderer, max_tokens=10_000).rendered
    steps = [examples[at : at + setting.prompts] for at in range(0, count, setting.prompts)]
    plan = {
        "steps": [pairs_of(step) for step in steps],
        "batch": setting.peer_batch,
        "pad_id": 0,
        "threads": torch.get_num_threads(),
        "output": str(folder / "out"),
    }
    (folder / "pairs.json").write_text(json.dumps(plan))
    ours = Ours(loaded, folder / "head.safetensors")
    arguments = [str(weights), str(folder / "pairs.json"), str(folder / "head.safetensors"), dtype]
    seconds: tuple[list[float], list[float]] = ([], [])
    script = Path(__file__).parent / "peers" / "trl_reward.py"
    with closing(Program(options.peer_python, script, arguments, {})) as peer:
        for number, step in enumerate(steps):
            there, (here, loss) = peer.step(), ours.step(step)
            if number == 0:
                losses = loss, there["loss"]
            else:
                seconds[0].append(here)
                seconds[1].append(there["seconds"])
    found = {"loss": losses[0], "peer_loss": losses[1]}
    if rounds:
        pairs = len(plan["steps"][0])
        found |= {
            "pairs": pairs,
            "tokens": statistics.fmean(sum(example.tokens for example in step) for step in steps),
            "peer_tokens": statistics.fmean(
                sum(len(ids) for pair in step for ids in pair.values()) for step in plan["steps"]
            ),
            "pairs_a_second": pairs / statistics.median(seconds[0]),
            "peer_pairs_a_second": pairs / statistics.median(seconds[1]),
        }
        found["ratio"] = found["pairs_a_second"] / found["peer_pairs_a_second"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--peer-python", required=True, help="the peer's interpreter")
    parser.add_argument("--comparisons", type=Path, help="JSONL of comparisons instead of made-up ones")
    parser.add_argument("--prompt", type=int, default=128, help="tokens of a made-up prompt, on average")
    parser.add_argument(
        "--completion", type=int, default=96, help="tokens of a made-up completion, on average"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed steps of each side")
    parser.add_argument(
        "--only", choices=["loss", "4", "9"], help="only the check of the loss, or only this K"
    )
    options = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in ALLOCATOR.items()):
        os.execve(
            sys.executable, [sys.executable, *sys.argv], os.environ | ALLOCATOR
        )  # read at a program's start
    options.home = home()
    results: dict[str, float] = {}
    with tempfile.TemporaryDirectory() as name:
        if options.only in (None, "loss"):
            found = measure(options, Setting(4, 1, 6), Path(name), dtype="float32", rounds=0)
            print(f"loss of the same pairs, fp32: {found['loss']:.6f}, TRL {found['peer_loss']:.6f}")
            results["loss_gap"] = abs(found["loss"] - found["peer_loss"])
        print(f"{'K':>3}{'pairs/step':>12}{'tokens':>9}{'TRL':>9}{'pairs/s':>10}{'TRL':>8}{'ratio':>8}")
        for setting in SETTINGS:
            if options.only in (None, str(setting.candidates)):
                found = measure(options, setting, Path(name), dtype="bfloat16", rounds=options.rounds)
                print(
                    f"{setting.candidates:>3}{found['pairs']:>12}{found['tokens']:>9.0f}{found['peer_tokens']:>9.0f}"
                    f"{found['pairs_a_second']:>10.2f}{found['peer_pairs_a_second']:>8.2f}{found['ratio']:>8.1f}",
                    flush=True,
                )
                results[f"ratio_k{setting.candidates}"] = found["ratio"]
    print(json.dumps(results))
    if results.get("loss_gap", 0) > 1e-4:
        raise SystemExit("the losses differ by more than 1e-4")


if __name__ == "__main__":
    main()
