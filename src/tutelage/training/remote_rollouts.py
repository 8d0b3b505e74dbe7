"""Rollouts drawn by servers of their own: vLLM, which serves the base and takes the policy's adapter as it is now.

For each call, the adapter is written in PEFT's format to a folder that this process and the servers see, loaded
under a new name, and unloaded in the end; what a process that was killed has left there, the next one takes off
first. Tokens go in and tokens come out, never text; every completion has its own seed. The servers' log-probabilities
are kept as a measure only: the trainer computes its own.

A server is started with, for example:
VLLM_ALLOW_RUNTIME_LORA_UPDATING=True vllm serve BASE --enable-lora --max-lora-rank 64
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tutelage.errors import TrainingError
from tutelage.models.adapters import save_adapter
from tutelage.models.generation import Completion, Request
from tutelage.models.loading import LoadedModel
from tutelage.training.weights import Weights

_PATIENCE = httpx.Timeout(10, read=600, pool=None)
_AT_ONCE = httpx.Limits(max_connections=256)
_PAUSES = (1.0, 2.0, 4.0)  # seconds before a server that failed is asked again
_LOAD, _UNLOAD = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"
_LAST_WORD = 5.0  # seconds for a server to let go of an adapter after something went wrong
_RESUME = "when it is well again, go on with --resume"


@dataclass(frozen=True, slots=True)
class RolloutServers:
    """Addresses of servers of one base model, and a folder that they and this process see."""

    urls: tuple[str, ...]
    folder: Path

    def complete(self, loaded: LoadedModel, policy: Weights, requests: Sequence[Request]) -> list[Completion]:
        """Every request's completion under an adapter, in order.

        Raises TrainingError when a server refuses, or fails again and again.
        """
        assert policy.adapter is not None
        left = [folder.name for folder in self.folder.glob("*")]
        name = f"{policy.adapter}-{secrets.token_hex(4)}"
        save_adapter(policy.model, policy.adapter, self.folder / name, base=loaded.name)
        try:
            return asyncio.run(self._complete(name, left, loaded.renderer.stop_ids, requests))
        finally:
            for each in (name, *left):
                shutil.rmtree(self.folder / each, ignore_errors=True)

    async def _complete(
        self, name: str, left: Sequence[str], stop_ids: frozenset[int], requests: Sequence[Request]
    ) -> list[Completion]:
        bodies = [_body(request, name, stop_ids) for request in requests]
        adapter = {"lora_name": name, "lora_path": str((self.folder / name).resolve())}
        async with httpx.AsyncClient(timeout=_PATIENCE, limits=_AT_ONCE) as client:
            for each in left:
                await self._take_off(client, each)
            try:
                await self._tell_all(client, _LOAD, adapter)
                answers = await asyncio.gather(
                    *(
                        _post(client, self.urls[index % len(self.urls)] + "/v1/completions", body)
                        for index, body in enumerate(bodies)
                    )
                )
            except BaseException:
                await self._take_off(client, name)
                raise
            await self._tell_all(client, _UNLOAD, {"lora_name": name})
        return [_completion(answer.json(), stop_ids) for answer in answers]

    async def _tell_all(self, client: httpx.AsyncClient, path: str, body: dict[str, str]) -> None:
        """Raises TrainingError when one of them does not do it, after all have answered."""
        told = (_post(client, url + path, body) for url in self.urls)
        for each in await asyncio.gather(*told, return_exceptions=True):
            if isinstance(each, BaseException):
                raise each

    async def _take_off(self, client: httpx.AsyncClient, name: str) -> None:
        """Ask each server once to unload an adapter; those that cannot, or never had it, are left alone."""
        told = (client.post(url + _UNLOAD, json={"lora_name": name}, timeout=_LAST_WORD) for url in self.urls)
        await asyncio.gather(*told, return_exceptions=True)


def _body(request: Request, model: str, stop_ids: frozenset[int]) -> dict[str, Any]:
    """The whole distribution is asked for in so many words: a server may have other defaults for its model."""
    return {
        "model": model,
        "prompt": list(request.prompt_ids),
        "max_tokens": request.max_tokens,
        "seed": request.seed,
        "temperature": 1.0,
        "top_p": 1.0,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": sorted(stop_ids),
        "logprobs": 0,
        "return_token_ids": True,
    }


async def _post(client: httpx.AsyncClient, url: str, body: dict[str, Any]) -> httpx.Response:
    """Ask, and ask again where the server cannot be reached or fails. Raises TrainingError."""
    problem = ""
    for pause in (*_PAUSES, None):
        try:
            answer = await client.post(url, json=body)
        except httpx.TransportError as error:
            problem = f"it cannot be reached ({type(error).__name__})"
        else:
            if answer.status_code < 400:
                return answer
            problem = f"it answers {answer.status_code}: {answer.text[:300]}"
            if answer.status_code < 500:
                break
        if pause is not None:
            await asyncio.sleep(pause)
    raise TrainingError(f"the rollout server does not do its work: {problem}", where=url, hint=_RESUME)


def _completion(answer: dict[str, Any], stop_ids: frozenset[int]) -> Completion:
    """A completion with its end token. Raises TrainingError when the server did not give its tokens."""
    try:
        (choice,) = answer["choices"]
        token_ids, logprobs = choice["token_ids"], choice["logprobs"]["token_logprobs"]
        stopped = choice["finish_reason"] == "stop"
        whole = len(token_ids) == len(logprobs) > 0 and stopped == (token_ids[-1] in stop_ids)
    except (KeyError, TypeError, ValueError) as error:
        raise TrainingError(
            f"the rollout server's answer lacks tokens or log-probabilities: {error!r}",
            hint="it must know return_token_ids: vLLM does from 0.10.2 on",
        ) from error
    if not whole:
        raise TrainingError(
            f"the rollout server gave {len(token_ids)} tokens, {len(logprobs)} log-probabilities and the end "
            f"{choice['finish_reason']!r}, which do not belong together",
            hint="serve the very base that this run trains, with its own tokenizer and generation config",
        )
    return Completion(tuple(token_ids), tuple(logprobs), "stop" if stopped else "length")
