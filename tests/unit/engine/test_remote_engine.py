"""An engine on another server: what it draws and scores is what this process would; its failures are told plainly."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from tutelage.dialogue import Message
from tutelage.engine import remote_engine
from tutelage.engine.interface import Engine, Sampling, TokenChunk
from tutelage.engine.torch_engine import TorchEngine, load
from tutelage.errors import ContextTooLong, ModelError, Unavailable
from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.loading import load_model
from tutelage.registry import ModelVersion, Registry

PROMPT = [Message("user", "say owl")]
GREEDY = Sampling(temperature=0, max_tokens=12, top_logprobs=3)


@pytest.fixture(scope="module")
def version(tmp_path_factory: pytest.TempPathFactory) -> ModelVersion:
    """A version of `tiny` whose adapter matters."""
    home = tmp_path_factory.mktemp("versions")
    model = load_model("tiny", home).model
    model.add_adapter("new", AdapterShape(4, 8), seed=1)
    with torch.no_grad():
        for parameter in model.adapter_parameters("new"):
            parameter.add_(0.05)
    save_adapter(model, "new", home / "adapter", base="tiny")
    return Registry(home).publish(kind="chat", model="tiny", files=home / "adapter")


class Server:
    """The part of vLLM's API that an engine uses, on a real socket, with `tiny` behind it."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.model = load_model("tiny", home)
        self.engines: dict[str, TorchEngine] = {"base": TorchEngine("base", self.model)}
        self.refuses: Response | None = None
        self.breaks_off = False
        self.url = ""

    async def models(self, request: Request) -> Response:
        base = {"id": "base", "parent": None, "max_model_len": self.engines["base"].context_length}
        return JSONResponse(
            {"data": [base, *({"id": n, "parent": "base"} for n in self.engines if n != "base")]}
        )

    async def load(self, request: Request) -> Response:
        if self.refuses:
            return self.refuses
        body = await request.json()
        loaded = load_model("tiny", self.home)
        load_adapter(loaded.model, "it", Path(body["lora_path"]))
        loaded.model.merge_adapter("it")
        self.engines[body["lora_name"]] = TorchEngine(body["lora_name"], loaded)
        return PlainTextResponse("Success")

    async def unload(self, request: Request) -> Response:
        await self.engines.pop((await request.json())["lora_name"]).close()
        return PlainTextResponse("Success")

    async def complete(self, request: Request) -> Response:
        body = await request.json()
        if body["model"] not in self.engines:
            return JSONResponse({"error": {"message": "The model does not exist."}}, 404)
        engine = self.engines[body["model"]]
        if "prompt_logprobs" in body:
            return JSONResponse({"choices": [{"prompt_logprobs": await self._scores(engine, body)}]})
        assert (body["top_k"], body["min_p"], body["repetition_penalty"]) == (-1, 0.0, 1.0)
        return StreamingResponse(self._stream(engine, body), media_type="text/event-stream")

    async def _scores(self, engine: Engine, body: dict[str, Any]) -> list[dict[int, Any] | None]:
        scores = await engine.score(body["prompt"], top=body["prompt_logprobs"])
        return [None] + [
            {each: {"logprob": logprob} for each, logprob in [*top, (token_id, own)]}
            for (own, top), token_id in zip(scores, body["prompt"][1:], strict=True)
        ]

    async def _stream(self, engine: Engine, body: dict[str, Any]) -> AsyncIterator[str]:
        sampling = Sampling(
            temperature=body["temperature"],
            top_p=body["top_p"],
            max_tokens=body["max_tokens"],
            seed=body["seed"],
            top_logprobs=body["logprobs"],
        )
        async with aclosing(engine.generate(body["prompt"], sampling)) as chunks:  # type: ignore[type-var]
            async for chunk in chunks:
                end = body["stop_token_ids"][:1] if chunk.finish_reason == "stop" else []
                top = [{f"token_id:{i}": p for i, p in place} for place in chunk.top_logprobs]
                choice = {
                    "text": "what \x85 models \u2028 say",
                    "token_ids": [*chunk.token_ids, *end],
                    "logprobs": {
                        "token_logprobs": [*chunk.logprobs, *(-0.1 for _ in end)],
                        "top_logprobs": top,
                    },
                    "finish_reason": chunk.finish_reason,
                }
                if self.breaks_off:
                    return
                yield f"data: {json.dumps({'choices': [choice]}, ensure_ascii=False)}\n\n"
        yield "data: [DONE]\n\n"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    served = Server(tmp_path_factory.mktemp("served"))
    app = Starlette(
        routes=[
            Route("/v1/models", served.models),
            Route("/v1/load_lora_adapter", served.load, methods=["POST"]),
            Route("/v1/unload_lora_adapter", served.unload, methods=["POST"]),
            Route("/v1/completions", served.complete, methods=["POST"]),
        ]
    )
    listener = socket.create_server(("127.0.0.1", 0))
    served.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    process = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = Thread(target=process.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield served
    process.should_exit = True
    thread.join(10)
    listener.close()


async def drawn(engine: Engine, prompt: list[int], sampling: Sampling) -> list[TokenChunk]:
    return [chunk async for chunk in engine.generate(prompt, sampling)]


def test_it_answers_and_scores_as_this_process_does(
    server: Server, version: ModelVersion, tmp_path: Path
) -> None:
    async def both() -> None:
        here, there = load(version, tmp_path), remote_engine.load(version, tmp_path, server.url)
        assert (there.version, there.context_length) == (version.name, here.context_length)
        prompt = there.renderer.prompt(PROMPT)
        for sampling in (GREEDY, Sampling(seed=5, temperature=1, top_p=1, max_tokens=30)):
            ours, theirs = await drawn(here, prompt, sampling), await drawn(there, prompt, sampling)
            assert [(c.token_ids, c.finish_reason) for c in ours] == [
                (c.token_ids, c.finish_reason) for c in theirs
            ]
            for one, other in zip(ours, theirs, strict=True):
                assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)
                assert [[i for i, _ in place] for place in one.top_logprobs] == [
                    [i for i, _ in place] for place in other.top_logprobs
                ]
        ours_scored, theirs_scored = await here.score(prompt, top=2), await there.score(prompt, top=2)
        assert [own for own, _ in ours_scored] == pytest.approx([own for own, _ in theirs_scored], abs=1e-4)
        assert [[i for i, _ in top] for _, top in ours_scored] == [
            [i for i, _ in top] for _, top in theirs_scored
        ]
        assert version.name in server.engines
        await there.close()
        assert list(server.engines) == ["base"], "a version that is closed leaves the server"
        with pytest.raises(Unavailable):
            await drawn(there, prompt, GREEDY)
        await here.close()

    asyncio.run(both())


def test_what_the_context_cannot_hold_is_refused_here(
    server: Server, version: ModelVersion, tmp_path: Path
) -> None:
    async def ask() -> None:
        engine = remote_engine.load(version, tmp_path, server.url)
        long = [5] * engine.context_length
        with pytest.raises(ContextTooLong):
            await drawn(engine, long, GREEDY)
        with pytest.raises(ContextTooLong):
            await engine.score(long)
        await engine.close()

    asyncio.run(ask())


def test_a_server_that_breaks_off_or_is_gone_is_unavailable(
    server: Server, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        engine = remote_engine.load(version, tmp_path, server.url)
        monkeypatch.setattr(server, "breaks_off", True)
        with pytest.raises(Unavailable, match="broke off"):
            await drawn(engine, engine.renderer.prompt(PROMPT), GREEDY)
        await engine.close()

    asyncio.run(ask())
    with socket.create_server(("127.0.0.1", 0)) as unused:
        gone = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(Unavailable, match="cannot be reached"):
        remote_engine.load(version, tmp_path, gone)


def test_a_server_that_was_started_anew_is_given_its_adapters_again(
    server: Server, version: ModelVersion, tmp_path: Path
) -> None:
    async def ask() -> None:
        engine = remote_engine.load(version, tmp_path, server.url)
        prompt = engine.renderer.prompt(PROMPT)
        await drawn(engine, prompt, GREEDY)
        assert not engine.broken
        await server.engines.pop(version.name).close()
        with pytest.raises(Unavailable, match="does not exist"):
            await drawn(engine, prompt, GREEDY)
        assert engine.broken
        again = remote_engine.load(version, tmp_path, server.url)
        await engine.close()
        await drawn(again, prompt, GREEDY)
        await again.close()

    asyncio.run(ask())


def test_a_refused_version_says_how_to_start_the_server(
    server: Server, version: ModelVersion, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "refuses", PlainTextResponse("LoRA is not enabled", 404))
    with pytest.raises(ModelError, match="LoRA is not enabled") as raised:
        remote_engine.load(version, tmp_path, server.url)
    assert "--enable-lora" in raised.value.hint
