"""The content filter around /v1/chat/completions, and the scores that clients may ask for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

MODERATION = {"model": "omni-moderation-latest"}


def chunks_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def code_of(response: httpx.Response) -> Any:
    assert response.status_code == 400
    return response.json()["error"]["code"]


def moderation_of(response: httpx.Response, *, stream: bool) -> dict[str, Any]:
    found = [
        each["moderation"]
        for each in (chunks_of(response) if stream else [response.json()])
        if "moderation" in each
    ]
    assert len(found) == 1
    moderation: dict[str, Any] = found[0]
    return moderation


@pytest.mark.parametrize("stream", [False, True])
def test_the_filters_scores_come_with_the_answer(ask: Any, stream: bool) -> None:
    moderation = moderation_of(ask(moderation=MODERATION, n=2, stream=stream), stream=stream)
    for side, count in (("input", 1), ("output", 2)):
        part = moderation[side]
        assert (part["type"], len(part["results"])) == ("moderation_results", count)
        result = part["results"][0]
        assert (result["type"], result["model"], result["flagged"]) == (
            "moderation_result",
            part["model"],
            False,
        )
        assert result["category_scores"]["violence"] == 0.0
        assert len(result["categories"]) == len(result["category_applied_input_types"]) == 13


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_with_moderation_ends_with_its_usage(ask: Any, stream: bool) -> None:
    assert "moderation" not in ask(stream=stream).text
    chunks = chunks_of(ask(moderation=MODERATION, stream=True, stream_options={"include_usage": True}))
    assert [sorted(set(each) & {"moderation", "usage"}) for each in chunks[-2:]] == [
        ["moderation", "usage"],
        ["usage"],
    ]
    assert (chunks[-2]["usage"], chunks[-2]["choices"], chunks[-1]["usage"]["total_tokens"]) == (None, [], 49)


def test_a_client_may_have_more_blocked_but_never_less(site: Any, ask: Any) -> None:
    def policy(**modes: str) -> dict[str, Any]:
        return {**MODERATION, "policy": {side: {"mode": mode} for side, mode in modes.items()}}

    brawl = [{"role": "user", "content": "a brawl"}]
    scored = moderation_of(ask(messages=brawl, moderation=policy(input="score")), stream=False)
    assert scored["input"]["results"][0]["flagged"]
    assert code_of(ask(messages=brawl, moderation=policy(input="block"))) == "content_policy_violation"
    murder = [{"role": "user", "content": "a murder"}]
    assert code_of(ask(messages=murder, moderation=policy(input="score"))) == "content_policy_violation"

    site.engines["v1"].script(["There was a brawl."])
    choice = ask(moderation=policy(output="score")).json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("stop", "There was a brawl.")
    blocked = ask(moderation=policy(output="block"))
    choice = blocked.json()["choices"][0]
    assert (choice["finish_reason"], choice["message"]["content"]) == ("content_filter", "")
    assert moderation_of(blocked, stream=False)["output"]["results"][0]["flagged"]


def test_a_filter_that_fails_says_so_where_its_scores_would_be(site: Any, ask: Any) -> None:
    def fail(texts: Any, contexts: Any = None) -> Any:
        raise RuntimeError

    site.gate.classifier.score = fail
    moderation = moderation_of(ask(moderation=MODERATION), stream=False)
    assert moderation["input"]["type"] == moderation["output"]["type"] == "error"
