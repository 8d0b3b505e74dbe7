"""The official client, strict about shapes, against a real server."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tutelage.engine.interface import TokenChunk
from tutelage.errors import Unavailable
from tutelage.server.limits import Limits


@pytest.fixture
def official(site: Any) -> Iterator[openai.OpenAI]:
    with site.listening() as address:
        key = site.key("chat", "moderations")
        with openai.OpenAI(
            base_url=f"{address}/v1", api_key=key, max_retries=0, _strict_response_validation=True
        ) as client:
            yield client


HI: Any = [{"role": "user", "content": "Hi"}]
ANSWER = "Hello there. How can I help?"


def test_a_whole_answer(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(model="stable", messages=HI, n=2, seed=1, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["Hello there. How can I help?"] * 2
    assert answer.usage is not None
    assert answer.usage.total_tokens == 21 + 2 * 28
    assert answer.choices[0].logprobs is not None
    assert answer._request_id is not None


EVERYTHING: dict[str, Any] = {
    "frequency_penalty": 0.5,
    "function_call": "none",
    "functions": [],
    "logit_bias": {"5": 1},
    "logprobs": True,
    "max_completion_tokens": 100,
    "metadata": {},
    "modalities": ["text"],
    "moderation": {
        "model": "omni-moderation-latest",
        "policy": {"input": {"mode": "block"}, "output": {"mode": "score"}},
    },
    "n": 1,
    "parallel_tool_calls": True,
    "presence_penalty": -0.5,
    "prompt_cache_key": "a",
    "prompt_cache_options": {"mode": "implicit", "ttl": "30m"},
    "prompt_cache_retention": "24h",
    "reasoning_effort": "none",
    "response_format": {"type": "text"},
    "safety_identifier": "b",
    "seed": 4,
    "service_tier": "auto",
    "stop": ["zzz"],
    "store": False,
    "temperature": 0.5,
    "tool_choice": "none",
    "tools": [],
    "top_logprobs": 3,
    "top_p": 0.9,
    "user": "ann",
    "verbosity": "medium",
}
NOT_SUPPORTED: dict[str, Any] = {
    "audio": {"voice": "alloy", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {},
}


def test_every_parameter_that_the_client_knows_is_honoured_or_named(official: openai.OpenAI) -> None:
    known = set(inspect.signature(official.chat.completions.create).parameters)
    known -= {"model", "messages", "stream", "stream_options", "max_tokens", "timeout"}
    assert {name for name in known if not name.startswith("extra_")} == set(EVERYTHING) | set(NOT_SUPPORTED)
    answer = official.chat.completions.create(model="stable", messages=HI, **EVERYTHING)
    assert answer.moderation is not None
    assert answer.moderation.input.type == "moderation_results"
    assert answer.service_tier == "default"
    assert answer.choices[0].logprobs is not None
    assert [len(each.top_logprobs) for each in answer.choices[0].logprobs.content or []] == [1] * 28
    for name, value in NOT_SUPPORTED.items():
        with pytest.raises(openai.BadRequestError) as refused:
            official.chat.completions.create(model="stable", messages=HI, **{name: value})
        assert refused.value.param == name


def test_a_stream_of_everything(official: openai.OpenAI) -> None:
    with official.chat.completions.stream(
        model="stable",
        messages=HI,
        stream_options={"include_usage": True, "include_obfuscation": False},
        **EVERYTHING,
    ) as stream:
        final = stream.get_final_completion()
    assert final.moderation is not None
    assert final.usage is not None
    logprobs = final.choices[0].logprobs
    assert logprobs is not None
    assert "".join(each.token for each in logprobs.content or []) == final.choices[0].message.content


def test_completions(official: openai.OpenAI) -> None:
    options: dict[str, Any] = {"model": "stable", "max_tokens": 100, "best_of": 1, "n": 1}
    options |= {"logit_bias": {"5": 1}, "seed": 1, "stop": "zzz", "temperature": 0, "top_p": 1, "user": "ann"}
    options |= {"presence_penalty": 0.1, "frequency_penalty": 0.1, "suffix": None}
    whole = official.completions.create(prompt=["Say", "it"], echo=True, **options)
    assert [choice.text for choice in whole.choices] == [f"{prompt}{ANSWER}" for prompt in ("Say", "it")]


def test_a_stream_of_completions(site: Any) -> None:
    """Not strictly checked: the client has no null for the finish reason of chunks, which the API does send."""
    with site.listening() as address, openai.OpenAI(base_url=f"{address}/v1", api_key=site.key()) as client:
        chunks = list(
            client.completions.create(
                model="stable", prompt=[86, 68], stream=True, logprobs=2, echo=True, max_tokens=100
            )
        )
    assert "".join(chunk.choices[0].text for chunk in chunks) == f"SA{ANSWER}"
    logprobs = [chunk.choices[0].logprobs for chunk in chunks if chunk.choices[0].logprobs]
    assert "".join(token for each in logprobs for token in each.tokens or []) == f"SA{ANSWER}"


def test_a_stream(official: openai.OpenAI) -> None:
    stream = official.chat.completions.create(
        model="stable", messages=HI, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == (
        "Hello there. How can I help?"
    )
    assert [chunk.usage.total_tokens for chunk in chunks if chunk.usage] == [49]


def test_the_streaming_helper(official: openai.OpenAI) -> None:
    with official.chat.completions.stream(model="stable", messages=HI) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello there. How can I help?"


def test_models(official: openai.OpenAI) -> None:
    assert [model.id for model in official.models.list()] == ["stable", "latest", "v1"]
    for name in ("stable", "latest", "v1"):
        assert official.models.retrieve(name).id == name
    assert official.models.retrieve("stable").owned_by == "tutelage"
    with pytest.raises(openai.NotFoundError) as unknown:
        official.models.retrieve("gpt-4")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")


def test_moderations(official: openai.OpenAI) -> None:
    result = official.moderations.create(input="a murder", model="omni-moderation-latest").results[0]
    assert result.flagged
    assert result.categories.violence
    assert not result.categories.self_harm_intent


def test_errors_arrive_as_the_clients_own(official: openai.OpenAI, site: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        official.chat.completions.create(model="gpt-4", messages=HI)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as blocked:
        official.chat.completions.create(model="stable", messages=[{"role": "user", "content": "murder"}])
    assert blocked.value.code == "content_policy_violation"
    with pytest.raises(openai.AuthenticationError):
        official.with_options(api_key="tut-wrong").models.list()
    with pytest.raises(openai.NotFoundError):
        official.embeddings.create(model="stable", input="Hi")
    with pytest.raises(openai.PermissionDeniedError):
        official.with_options(api_key=site.key("moderations")).models.list()
    with pytest.raises(openai.APIStatusError) as method:
        official.models.delete("v1")
    assert method.value.status_code == 405


def test_a_limit_arrives_as_the_clients_own_and_is_waited_for(site: Any) -> None:
    site.limits = Limits(requests=60, tokens=30)
    with (
        site.listening() as address,
        openai.OpenAI(base_url=f"{address}/v1", api_key=site.key("chat")) as client,
    ):
        once = client.with_options(max_retries=0)
        once.chat.completions.create(model="stable", messages=HI, max_tokens=10)
        with pytest.raises(openai.RateLimitError) as limited:
            once.chat.completions.create(model="stable", messages=HI)
        assert limited.value.code == "rate_limit_exceeded"
        assert 0 < int(limited.value.response.headers["retry-after"]) < 60


def test_a_failure_in_mid_stream_arrives_as_an_error(site: Any) -> None:
    async def fail(prompt_ids: Any, sampling: Any) -> Any:
        yield TokenChunk((40,), (0.0,))
        raise Unavailable("the model stopped working")

    with site.listening() as address, openai.OpenAI(base_url=f"{address}/v1", api_key=site.key()) as client:
        client.chat.completions.create(model="stable", messages=HI)
        site.engines["v1"].generate = fail
        with pytest.raises(openai.APIError, match="stopped working"):
            list(client.chat.completions.create(model="stable", messages=HI, stream=True))


async def use_asynchronously(address: str, key: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="stable", messages=HI, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_the_asynchronous_client(site: Any) -> None:
    import asyncio

    with site.listening() as address:
        text = asyncio.run(use_asynchronously(address, site.key("chat")))
    assert text == "Hello there. How can I help?"
