"""Many people chatting at once: time to the first words and the server's memory, without a model's own time.

    python benchmarks/load.py [--people 200] [--minutes 3] [--streams 500]

The server runs in a process of its own, over a fresh home, with the scripted engine (which waits a fixed time a token)
and the real content filter, store and pages. Each of the people is a guest who asks, follows the answer to its end,
thinks for a while and asks on in the same dialogue; turned away (503), they come back when they were told to. The
first words cannot come before the filter has judged a sentence; `waited` is the time to the first words less the time
in which the engine says that sentence: what the server adds, the line in front of its places included. Then
`--streams` streams of /v1 are opened at once and held open together. Everything stays on this machine. The last line
is a JSON object: p50 and p99 in seconds, memory in MB.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from tutelage.models.locate import locate

SENTENCE = "That is a good question to think about. "
ANSWER = (
    SENTENCE + "There are several ways to look at it, and each of them has something to say for itself. " * 3
)
DELAY = 0.03
THINKING = (15.0, 60.0)


def main() -> None:
    options = _options()
    if options.serve:
        serve(Path(options.serve))
        return
    with tempfile.TemporaryDirectory() as home:
        locate("builtin", Path(home))  # here, so that the server's memory is its own
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", home], stdout=subprocess.PIPE, text=True, env={**os.environ}
        )
        assert server.stdout is not None
        try:
            found = json.loads(server.stdout.readline())
            report = asyncio.run(measure(found, server.pid, options))
        finally:
            server.terminate()
            server.wait(30)
    for name, value in report.items():
        print(f"{name:24} {value}")
    print(json.dumps(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--people", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=3.0)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    return parser.parse_args()


def serve(home: Path) -> None:
    """The server, as `tutelage serve` runs it but for the engine. Prints its address and a key as JSON."""
    import socket

    import uvicorn

    from tutelage.engine.pool import EnginePool
    from tutelage.engine.scripted_engine import ScriptedEngine
    from tutelage.moderation.gate import default_gate
    from tutelage.registry import Registry
    from tutelage.rendering import load_renderer
    from tutelage.server.connections import PatientProtocol
    from tutelage.server.limits import Limits
    from tutelage.store import Store, accounts
    from tutelage.web.app import create_app

    renderer = load_renderer(locate("builtin", home))
    registry, store = Registry(home), Store.open(home / "tutelage.db")
    registry.publish(kind="chat", model="builtin")
    registry.promote("v1")
    engine = ScriptedEngine([ANSWER], renderer=renderer, delay=DELAY, version="v1", context_length=100_000)
    with store.write() as tx:
        key = accounts.create_key(tx, name="load", scopes=["chat"])[1]
    app = create_app(
        store=store,
        engines=EnginePool(registry, lambda version: engine),
        gate=default_gate(home),
        registry=registry,
        home=home,
        limits=Limits(requests=0, tokens=0, address_requests=0),
    )
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        sentence = len(renderer.completion(SENTENCE)) * DELAY
        print(json.dumps({"url": url, "key": key, "sentence": sentence}), flush=True)
        config = uvicorn.Config(
            app, http=PatientProtocol, access_log=False, log_level="warning", limit_concurrency=5000
        )
        uvicorn.Server(config).run(sockets=[listener])


async def measure(site: dict[str, Any], server: int, options: argparse.Namespace) -> dict[str, Any]:
    url = site["url"]
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        await client.get("/api/me")
    before = memory(server)
    until = time.monotonic() + options.minutes * 60
    waits = [
        wait
        for waits in await asyncio.gather(*(chat(site, until) for _ in range(options.people)))
        for wait in waits
    ]
    after = memory(server)
    held = await asyncio.gather(*(stream(url, site["key"]) for _ in range(options.streams)))
    return {
        "people": options.people,
        "answers": len(waits),
        "waited_p50_s": round(statistics.median(waits), 3),
        "waited_p99_s": round(statistics.quantiles(waits, n=100)[98], 3),
        "memory_before_mb": before["VmRSS"],
        "memory_after_mb": after["VmRSS"],
        "streams": options.streams,
        "streams_complete": sum(held),
        "memory_peak_mb": memory(server)["VmHWM"],
    }


async def chat(site: dict[str, Any], until: float) -> list[float]:
    """One person's chat; how much longer than the engine took the first words of each answer did."""
    waits: list[float] = []
    limits = httpx.Limits(max_connections=1)
    async with httpx.AsyncClient(base_url=site["url"], timeout=60, limits=limits) as client:
        await asyncio.sleep(random.uniform(0, THINKING[1]))
        path = "/api/dialogues"
        while time.monotonic() < until:
            asked = time.monotonic()
            response = await client.post(path, json={"text": "What do you make of it?"})
            if response.status_code == 503:
                await asyncio.sleep(float(response.headers["retry-after"]))
                continue
            response.raise_for_status()
            turn = response.json()
            path = f"/api/dialogues/{turn['dialogue_id']}/messages"
            async for words in deltas(client, turn["answer_id"]):
                if words:
                    waits.append(time.monotonic() - asked - site["sentence"])
                    break
            async for _ in deltas(client, turn["answer_id"]):
                pass
            await asyncio.sleep(random.uniform(*THINKING))
    return waits


async def deltas(client: httpx.AsyncClient, answer_id: str) -> AsyncIterator[str]:
    async with client.stream("GET", f"/api/answers/{answer_id}/events") as response:
        async for line in response.aiter_lines():
            if line.startswith('data: {"text"'):
                yield json.loads(line.removeprefix("data: "))["text"]


async def stream(url: str, key: str) -> bool:
    """One stream of /v1; whether it came to its end."""
    body = {"model": "stable", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    async with (
        httpx.AsyncClient(base_url=url, timeout=120, headers={"authorization": f"Bearer {key}"}) as client,
        client.stream("POST", "/v1/chat/completions", json=body) as response,
    ):
        return [line async for line in response.aiter_lines() if line][-1] == "data: [DONE]"


def memory(process: int) -> dict[str, int]:
    """Resident memory of a process now and at its highest, in MB."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    fields = dict(line.split(":", 1) for line in lines)
    return {name: int(fields[name].split()[0]) // 1024 for name in ("VmRSS", "VmHWM")}


if __name__ == "__main__":
    main()
