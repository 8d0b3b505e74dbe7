"""An engine on another server: vLLM serves the base, and takes a version's adapter when the version is loaded.

Tokens go there and tokens come back, so what renders dialogues and filters text stays here. The server runs with
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora, serves the base of the versions, and sees the folder of
versions at the same path as this process.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from tutelage.engine.interface import Sampling, Score, TokenChunk
from tutelage.errors import ContextTooLong, InvalidRequest, ModelError, Sentence, Unavailable
from tutelage.models.locate import locate
from tutelage.registry import ModelVersion
from tutelage.rendering import Renderer, load_renderer

_PATIENCE = httpx.Timeout(10, read=120, pool=None)
_AT_ONCE = httpx.Limits(max_connections=None)


class RemoteEngine:
    """Serves one model version from a server of the name `served` there. See `Engine`."""

    def __init__(
        self, version: str, renderer: Renderer, *, url: str, served: str, context_length: int
    ) -> None:
        self._version = version
        self._renderer = renderer
        self._served = served
        self._context_length = context_length
        self._client = httpx.AsyncClient(base_url=url, timeout=_PATIENCE, limits=_AT_ONCE)
        self._closing = self._broken = False

    @property
    def version(self) -> str:
        return self._version

    @property
    def renderer(self) -> Renderer:
        return self._renderer

    @property
    def context_length(self) -> int:
        return self._context_length

    @property
    def broken(self) -> bool:
        """Whether the server does not know the version any more: it has been started anew."""
        return self._broken

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        body = self._body(prompt_ids, sampling)
        ends = self._renderer.stop_ids | sampling.stop_ids
        with _reachable():
            async with self._client.stream("POST", "/v1/completions", json=body) as answer:
                await self._check(answer)
                async for line in _lines(answer):
                    if line.startswith(b"data: {"):
                        event = json.loads(line.removeprefix(b"data: "))
                        yield (chunk := _chunk(event, ends, top=sampling.top_logprobs))
                        if chunk.finish_reason:
                            return
        raise Unavailable("the model's server broke off its answer", hint="send the message again")

    async def score(self, token_ids: Sequence[int], *, top: int = 0) -> list[Score]:
        if len(token_ids) >= self._context_length:
            raise ContextTooLong(
                Sentence(
                    "this has {tokens} tokens, and the server's context holds {most}",
                    tokens=len(token_ids),
                    most=self._context_length - 1,
                ),
                hint="shorten it",
            )
        body = {"model": self._served, "prompt": list(token_ids), "max_tokens": 1, "prompt_logprobs": top}
        with _reachable():
            answer = await self._client.post("/v1/completions", json=body)
            await self._check(answer)
        places = answer.json()["choices"][0]["prompt_logprobs"][1:]
        return [_score(place, token_id, top) for place, token_id in zip(places, token_ids[1:], strict=True)]

    async def close(self) -> None:
        """Take the version's adapter off the server; answers under way there still end."""
        self._closing = True
        if self._served == self._version and not self._broken:
            with _reachable():
                await self._client.post("/v1/unload_lora_adapter", json={"lora_name": self._served})
        await self._client.aclose()

    async def _check(self, answer: httpx.Response) -> None:
        """Raises Unavailable when the server refuses."""
        if answer.is_error:
            self._broken = self._broken or answer.status_code == httpx.codes.NOT_FOUND
            await answer.aread()
            raise Unavailable(
                Sentence(
                    "the model's server answers {status}: {answer}",
                    status=answer.status_code,
                    answer=answer.text[:300],
                ),
                hint="see the server's own log",
            )

    def _body(self, prompt_ids: Sequence[int], sampling: Sampling) -> dict[str, Any]:
        """Everything that decides a draw is said: the server may have other defaults for its model."""
        if self._closing:
            raise Unavailable("this version is being taken out of service", hint="send the message again")
        room = self._context_length - len(prompt_ids)
        wanted = room if sampling.max_tokens is None else sampling.max_tokens
        if not prompt_ids or wanted < 1:
            raise InvalidRequest("a prompt and max_tokens are at least one token long", param="max_tokens")
        if room < 1:
            raise ContextTooLong(
                Sentence(
                    "the prompt has {tokens} tokens, and the server's context holds {most}",
                    tokens=len(prompt_ids),
                    most=self._context_length,
                ),
                hint="shorten the message, or start a new dialogue",
                code="context_length_exceeded",
            )
        return {
            "model": self._served,
            "prompt": list(prompt_ids),
            "max_tokens": min(room, wanted),
            "temperature": sampling.temperature,
            "top_p": sampling.top_p,
            "top_k": -1,
            "min_p": 0.0,
            "repetition_penalty": 1.0,
            "presence_penalty": sampling.presence_penalty,
            "frequency_penalty": sampling.frequency_penalty,
            "logit_bias": {str(token_id): bias for token_id, bias in sampling.logit_bias.items()},
            "seed": sampling.seed,
            "stop_token_ids": sorted(self._renderer.stop_ids | sampling.stop_ids),
            "logprobs": sampling.top_logprobs,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "stream": True,
        }


def load(version: ModelVersion, home: Path, url: str) -> RemoteEngine:
    """Have the server at `url` take a chat version's adapter; a bare base is answered for by the server's own.

    Raises ModelError when the version has weights of its own or the server refuses it, Unavailable when the
    server cannot be reached.
    """
    if version.weights is not None:
        raise ModelError(
            Sentence(
                "{version} has weights of its own, and the server at {url} serves another model",
                version=version.name,
                url=url,
            ),
            hint=Sentence(
                "serve {weights} there, with its versions' adapters, or serve without --engine",
                weights=version.weights,
            ),
        )
    with _reachable(), httpx.Client(base_url=url, timeout=_PATIENCE) as client:
        models = client.get("/v1/models").raise_for_status().json()["data"]
        base = next(model for model in models if not model.get("parent"))
        loaded = {model["id"] for model in models}
        if version.adapter is not None and version.name not in loaded:
            adapter = {"lora_name": version.name, "lora_path": str(version.adapter.resolve())}
            answer = client.post("/v1/load_lora_adapter", json=adapter)
            if answer.is_error:
                raise ModelError(
                    Sentence(
                        "the server at {url} does not take {version}: {answer}",
                        url=url,
                        version=version.name,
                        answer=answer.text[:300],
                    ),
                    hint="start it with VLLM_ALLOW_RUNTIME_LORA_UPDATING=True and --enable-lora --max-lora-rank 64",
                )
    return RemoteEngine(
        version.name,
        load_renderer(locate(version.model, home)),
        url=url,
        served=base["id"] if version.adapter is None else version.name,
        context_length=base["max_model_len"],
    )


@contextmanager
def _reachable() -> Iterator[None]:
    """Raises Unavailable when the server cannot be reached or breaks off."""
    try:
        yield
    except httpx.HTTPError as error:
        raise Unavailable(
            Sentence("the model's server cannot be reached: {error}", error=error or type(error).__name__),
            hint="send it again later",
        ) from error


async def _lines(answer: httpx.Response) -> AsyncIterator[bytes]:
    """The lines of a stream of events. httpx's own also end at U+0085 and U+2028, which stand in what models say."""
    rest = b""
    async for piece in answer.aiter_bytes():
        *whole, rest = (rest + piece).split(b"\n")
        for line in whole:
            yield line


def _chunk(event: dict[str, Any], ends: frozenset[int], *, top: int) -> TokenChunk:
    """One event of the stream, without the end token. Raises Unavailable for a server that gives no tokens."""
    try:
        (choice,) = event["choices"]
        token_ids: list[int] = choice["token_ids"] or []
        shown = choice["logprobs"] or {"token_logprobs": [], "top_logprobs": []}
        named = [_ranked(place)[:top] for place in shown["top_logprobs"] or ()] if top else []
    except (KeyError, TypeError, ValueError) as error:
        raise Unavailable(
            Sentence("the model's server gives no tokens: {error}", error=error),
            hint="it must know return_token_ids, as vLLM does",
        ) from error
    count = len(token_ids)
    if choice["finish_reason"] == "stop" and count and token_ids[-1] in ends:
        count -= 1
    return TokenChunk(
        tuple(token_ids[:count]),
        tuple(shown["token_logprobs"][:count]),
        choice["finish_reason"],
        tuple(named[:count]),
    )


def _ranked(place: dict[str, float] | None) -> tuple[tuple[int, float], ...]:
    """The most probable tokens of a place, named `token_id:123`, best first."""
    found = [(int(name.removeprefix("token_id:")), logprob) for name, logprob in (place or {}).items()]
    return tuple(sorted(found, key=lambda each: -each[1]))


def _score(place: dict[str, dict[str, Any]], token_id: int, top: int) -> Score:
    ranked = sorted(((int(name), each["logprob"]) for name, each in place.items()), key=lambda each: -each[1])
    return place[str(token_id)]["logprob"], tuple(ranked[:top])
