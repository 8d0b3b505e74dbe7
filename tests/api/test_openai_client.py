"""The official client, strict about shapes, against a real server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import openai
import pytest


@pytest.fixture
def official(site: Any) -> Iterator[openai.OpenAI]:
    with site.listening() as address:
        key = site.key("chat", "moderations")
        with openai.OpenAI(
            base_url=f"{address}/v1", api_key=key, max_retries=0, _strict_response_validation=True
        ) as client:
            yield client


HI: Any = [{"role": "user", "content": "Hi"}]


def test_a_whole_answer(official: openai.OpenAI) -> None:
    answer = official.chat.completions.create(model="stable", messages=HI, n=2, seed=1, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["Hello there. How can I help?"] * 2
    assert answer.usage is not None
    assert answer.usage.total_tokens == 21 + 2 * 28
    assert answer.choices[0].logprobs is not None
    assert answer._request_id is not None


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
    assert [model.id for model in official.models.list()] == ["stable", "v1"]
    assert official.models.retrieve("stable").owned_by == "tutelage"


def test_moderations(official: openai.OpenAI) -> None:
    result = official.moderations.create(input="a murder", model="omni-moderation-latest").results[0]
    assert result.flagged
    assert result.categories.violence
    assert not result.categories.self_harm_intent


def test_errors_arrive_as_the_clients_own(official: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        official.chat.completions.create(model="gpt-4", messages=HI)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as blocked:
        official.chat.completions.create(model="stable", messages=[{"role": "user", "content": "murder"}])
    assert blocked.value.code == "content_policy_violation"
    with pytest.raises(openai.AuthenticationError):
        official.with_options(api_key="tut-wrong").models.list()


async def use_asynchronously(address: str, key: str) -> str:
    async with openai.AsyncOpenAI(base_url=f"{address}/v1", api_key=key, max_retries=0) as client:
        stream = await client.chat.completions.create(model="stable", messages=HI, stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])


def test_the_asynchronous_client(site: Any) -> None:
    import asyncio

    with site.listening() as address:
        text = asyncio.run(use_asynchronously(address, site.key("chat")))
    assert text == "Hello there. How can I help?"
