"""Rollouts from a server: the tokens that this process would draw, and failures told plainly."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock, Thread
from typing import Any

import pytest
import torch
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request as HttpRequest
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from tutelage.config import check
from tutelage.errors import ConfigError, TrainingError
from tutelage.models.adapters import AdapterShape, load_adapter, save_adapter
from tutelage.models.generation import Completion, Request, complete
from tutelage.models.heads import ScalarHead
from tutelage.models.loading import LoadedModel, load_model
from tutelage.training import remote_rollouts
from tutelage.training.actors import POLICY, Models
from tutelage.training.ppo_recipe import PPOConfig
from tutelage.training.remote_rollouts import RolloutServers
from tutelage.training.reward_model import RewardModel, ValueModel
from tutelage.training.rollouts import sample, whole_distribution
from tutelage.training.weights import Weights, adapter_weights

PROMPTS = [[5, 6, 7], [8, 9], [5, 6, 7]]
REQUESTS = whole_distribution(PROMPTS, [1, 2, 3], 12)
WHOLE = {"temperature": 1.0, "top_p": 1.0, "top_k": -1, "min_p": 0.0, "repetition_penalty": 1.0}


@dataclass
class Server:
    """The part of vLLM's API that rollouts use, on a real socket, with `tiny` behind it."""

    loaded: LoadedModel
    url: str = ""
    seen: list[str] = field(default_factory=list)
    fails: list[Response] = field(default_factory=list)
    refuses: bool = False
    spoil: Any = None
    one_at_a_time: Any = field(default_factory=Lock)

    async def load(self, request: HttpRequest) -> Response:
        body = await request.json()
        self.seen.append("load")
        if self.fails:
            return self.fails.pop(0)
        if body["lora_name"] in self.loaded.model.switch.shapes:
            return JSONResponse({"error": {"message": "has already been loaded"}}, 400)
        load_adapter(self.loaded.model, body["lora_name"], Path(body["lora_path"]))
        return PlainTextResponse("Success")

    async def unload(self, request: HttpRequest) -> Response:
        self.seen.append("unload")
        name = (await request.json())["lora_name"]
        if name not in self.loaded.model.switch.shapes:
            return JSONResponse({"error": {"message": "cannot be found"}}, 404)
        self.loaded.model.drop_adapter(name)
        return PlainTextResponse("Success")

    async def completions(self, request: HttpRequest) -> Response:
        body = await request.json()
        self.seen.append("complete")
        assert {key: body[key] for key in WHOLE} == WHOLE, "a server's own defaults must not narrow anything"
        assert body["return_token_ids"]
        if self.refuses:
            return PlainTextResponse("no such prompt", 400)
        asked = Request(prompt_ids=body["prompt"], max_tokens=body["max_tokens"], seed=body["seed"])
        with self.one_at_a_time, self.loaded.model.using(body["model"]):
            (made,) = complete(self.loaded.model, frozenset(body["stop_token_ids"]), [asked])
        choice = {
            "token_ids": made.token_ids,
            "logprobs": {"token_logprobs": made.logprobs},
            "finish_reason": made.finish_reason,
        }
        return JSONResponse({"choices": [choice | (self.spoil or {})]})


@pytest.fixture
def server(home: Path) -> Iterator[Server]:
    with serving(home) as served:
        yield served


@contextmanager
def serving(home: Path) -> Iterator[Server]:
    served = Server(load_model("tiny", home))
    routes = {
        "/v1/load_lora_adapter": served.load,
        "/v1/unload_lora_adapter": served.unload,
        "/v1/completions": served.completions,
    }
    app = Starlette(routes=[Route(path, answer, methods=["POST"]) for path, answer in routes.items()])
    listener = socket.create_server(("127.0.0.1", 0))
    served.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    process = uvicorn.Server(uvicorn.Config(app, log_level="critical"))
    thread = Thread(target=process.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield served
    finally:
        process.should_exit = True
        thread.join(10)
        listener.close()


@pytest.fixture
def models(home: Path) -> Models:
    loaded = load_model("tiny", home)
    loaded.model.add_adapter(POLICY, AdapterShape(4, 8), seed=3)
    with torch.no_grad():
        for parameter in loaded.model.adapter_parameters(POLICY):
            parameter.add_(0.05)
    value = ValueModel(POLICY, ScalarHead(loaded.model.width, seed=0))
    policy = adapter_weights(loaded.model, POLICY)
    return Models(loaded, policy, policy, value, RewardModel((value,)))


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_rollouts, "_PAUSES", (0.0, 0.0))


def with_servers(models: Models, folder: Path, *urls: str) -> Models:
    return replace(models, servers=RolloutServers(urls, folder))


def same(one: list[Completion], other: list[Completion]) -> bool:
    return [(each.token_ids, each.finish_reason) for each in one] == [
        (each.token_ids, each.finish_reason) for each in other
    ]


def test_a_server_draws_what_this_process_draws(server: Server, models: Models, tmp_path: Path) -> None:
    """Of the policy as it is at each call: the adapter goes there anew, and nothing of it stays behind."""
    remote = with_servers(models, tmp_path / "rollouts", server.url)
    first = sample(remote, models.policy, REQUESTS)
    assert same(first, sample(models, models.policy, REQUESTS))
    with torch.no_grad():
        for parameter in models.model.adapter_parameters(POLICY):
            parameter.mul_(-1.5)
    second = sample(remote, models.policy, REQUESTS)
    assert same(second, sample(models, models.policy, REQUESTS))
    assert not same(first, second)
    assert server.seen == ["load", "complete", "complete", "complete", "unload"] * 2
    assert list((tmp_path / "rollouts").iterdir()) == []
    assert server.loaded.model.switch.shapes == {}


def test_what_a_killed_process_left_is_taken_off_by_the_next(
    home: Path, server: Server, models: Models, tmp_path: Path
) -> None:
    save_adapter(models.model, POLICY, tmp_path / "policy-dead", base="tiny")
    load_adapter(server.loaded.model, "policy-dead", tmp_path / "policy-dead")
    with serving(home) as other:  # which does not know it any more
        made = sample(with_servers(models, tmp_path, server.url, other.url), models.policy, REQUESTS)
        assert same(made, sample(models, models.policy, REQUESTS))
        assert server.seen[:2] == other.seen[:2] == ["unload", "load"]
    assert server.loaded.model.switch.shapes == {}
    assert list(tmp_path.iterdir()) == []


def test_several_servers_share_the_work(home: Path, server: Server, models: Models, tmp_path: Path) -> None:
    with serving(home) as other:
        made = sample(with_servers(models, tmp_path, server.url, other.url), models.policy, REQUESTS)
    assert same(made, sample(models, models.policy, REQUESTS))
    assert (server.seen.count("complete"), other.seen.count("complete")) == (2, 1)


def test_what_the_base_says_itself_is_drawn_here(server: Server, models: Models, tmp_path: Path) -> None:
    """The reference is the base where that is the SFT model."""
    base = Weights(models.model, None, [])
    made = sample(with_servers(models, tmp_path, server.url), base, REQUESTS)
    assert same(made, sample(models, base, REQUESTS))
    assert server.seen == []


def test_a_server_that_stumbles_is_asked_again(server: Server, models: Models, tmp_path: Path) -> None:
    server.fails = [PlainTextResponse("busy", 503), PlainTextResponse("busy", 500)]
    made = sample(with_servers(models, tmp_path, server.url), models.policy, REQUESTS)
    assert same(made, sample(models, models.policy, REQUESTS))
    assert server.seen[:3] == ["load"] * 3


def test_a_server_that_is_away_stops_the_run_with_a_sentence(models: Models, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
    with pytest.raises(TrainingError, match="cannot be reached") as raised:
        sample(with_servers(models, tmp_path, url), models.policy, REQUESTS)
    assert raised.value.where == f"{url}/v1/load_lora_adapter"
    assert "--resume" in raised.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_refusal_is_not_repeated(server: Server, models: Models, tmp_path: Path) -> None:
    server.fails = [PlainTextResponse("max_lora_rank is 2", 400)]
    with pytest.raises(TrainingError, match="400: max_lora_rank is 2"):
        sample(with_servers(models, tmp_path, server.url), models.policy, REQUESTS)
    assert server.seen == ["load", "unload"]


def test_an_adapter_is_taken_off_every_server_when_one_does_not_answer(
    home: Path, server: Server, models: Models, tmp_path: Path
) -> None:
    with serving(home) as other:
        other.refuses = True
        with pytest.raises(TrainingError, match="400: no such prompt"):
            sample(with_servers(models, tmp_path, server.url, other.url), models.policy, REQUESTS)
        assert server.loaded.model.switch.shapes == other.loaded.model.switch.shapes == {}


@pytest.mark.parametrize(
    "spoil",
    [
        {"token_ids": None},
        {"token_ids": [4]},
        {"token_ids": [], "logprobs": {"token_logprobs": []}},
        {"logprobs": None},
        {"token_ids": [4, 4], "logprobs": {"token_logprobs": [-1, -1]}, "finish_reason": "stop"},
    ],
    ids=["no-tokens", "other-length", "empty", "no-logprobs", "end-token-left-out"],
)
def test_answers_that_cannot_be_trained_on_are_refused(
    server: Server, models: Models, tmp_path: Path, spoil: dict[str, Any]
) -> None:
    server.spoil = spoil
    with pytest.raises(TrainingError, match="rollout server"):
        sample(with_servers(models, tmp_path, server.url), models.policy, REQUESTS)


def test_an_address_has_a_form() -> None:
    good = check({"rollout_servers": ["http://127.0.0.1:8000"]}, PPOConfig)
    assert good.rollout_servers == ["http://127.0.0.1:8000"]
    with pytest.raises(ConfigError, match="rollout_servers"):
        check({"rollout_servers": ["127.0.0.1:8000"]}, PPOConfig)
