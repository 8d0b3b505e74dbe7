"""POST /v1/chat/completions: shapes, streams, log-probabilities, the filter, clients that leave."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]


def test_a_whole_answer_has_openais_shape(ask: Any) -> None:
    response = ask()
    body = response.json()
    assert set(body) == {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert (body["object"], body["model"]) == ("chat.completion", "v1")
    assert body["choices"] == [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello there. How can I help?", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ]
    assert body["usage"] == {"prompt_tokens": 21, "completion_tokens": 28, "total_tokens": 49}
    assert response.headers["x-request-id"].startswith("req_")
    assert int(response.headers["openai-processing-ms"]) >= 0


def test_a_stream_has_openais_chunks(ask: Any, chunks_of: Any) -> None:
    response = ask(stream=True, stream_options={"include_usage": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    *chunks, usage = chunks_of(response)
    assert len({(each["id"], each["created"], each["model"], each["object"]) for each in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"] == {"role": "assistant", "content": ""}
    text = "".join(each["choices"][0]["delta"].get("content", "") for each in chunks)
    assert text == "Hello there. How can I help?"
    assert chunks[-1]["choices"] == [{"index": 0, "delta": {}, "logprobs": None, "finish_reason": "stop"}]
    assert all(each["usage"] is None for each in chunks)
    assert (usage["choices"], usage["usage"]["total_tokens"]) == ([], 49)


def test_without_stream_options_no_chunk_speaks_of_usage(ask: Any, chunks_of: Any) -> None:
    assert all("usage" not in each for each in chunks_of(ask(stream=True)))


def test_several_choices_have_an_index_each(site: Any, ask: Any, chunks_of: Any) -> None:
    site.engines["v1"].script(["one", "two"])
    choices = ask(n=2, seed=0).json()["choices"]
    assert [(each["index"], each["message"]["content"]) for each in choices] == [(0, "one"), (1, "two")]
    texts = {0: "", 1: ""}
    ends = []
    for chunk in chunks_of(ask(n=2, seed=0, stream=True)):
        choice = chunk["choices"][0]
        texts[choice["index"]] += choice["delta"].get("content", "")
        ends += [choice["index"]] if choice["finish_reason"] else []
    assert (texts, sorted(ends)) == ({0: "one", 1: "two"}, [0, 1])


@pytest.fixture
def streamed(chunks_of: Any) -> Callable[[httpx.Response], tuple[str, list[Any]]]:
    """The text of a stream and the entries of its log-probabilities."""

    def read(response: httpx.Response) -> tuple[str, list[Any]]:
        choices = [choice for chunk in chunks_of(response) for choice in chunk["choices"]]
        text = "".join(choice["delta"].get("content", "") for choice in choices)
        return text, [entry for choice in choices for entry in (choice["logprobs"] or {}).get("content", [])]

    return read


def test_logprobs_come_with_their_tokens(ask: Any, streamed: Any) -> None:
    logprobs = ask(logprobs=True, max_tokens=2).json()["choices"][0]["logprobs"]
    first = {"token": "H", "logprob": 0.0, "bytes": [72], "top_logprobs": []}
    assert (logprobs["content"][0], logprobs["refusal"]) == (first, None)
    text, entries = streamed(ask(logprobs=True, stream=True))
    assert "".join(entry["token"] for entry in entries) == text == "Hello there. How can I help?"


def test_top_logprobs_name_the_most_probable_tokens(ask: Any) -> None:
    entry = ask(logprobs=True, top_logprobs=3, max_tokens=1).json()["choices"][0]["logprobs"]["content"][0]
    assert entry["top_logprobs"] == [{"token": "H", "logprob": 0.0, "bytes": [72]}]


@pytest.mark.parametrize(
    ("stop", "kept"), [("How", "Hello there. "), (["e. H"], "Hello ther"), ("Hello", "")]
)
def test_logprobs_end_where_the_text_ends(ask: Any, stop: Any, kept: str, streamed: Any) -> None:
    content = ask(logprobs=True, stop=stop).json()["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == kept
    text, entries = streamed(ask(logprobs=True, stop=stop, stream=True))
    assert "".join(entry["token"] for entry in entries) == text == kept


def test_tokens_that_are_parts_of_characters_show_their_bytes(site: Any, ask: Any, streamed: Any) -> None:
    site.engines["v1"].script(["☕"])
    for entries in (
        ask(logprobs=True).json()["choices"][0]["logprobs"]["content"],
        streamed(ask(logprobs=True, stream=True))[1],
    ):
        assert [entry["token"] for entry in entries] == ["\\xe2", "\\x98", "\\x95"]
        assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == "☕"


def test_a_version_can_be_asked_for_by_its_name(site: Any, ask: Any) -> None:
    site.registry.publish(kind="chat", model="tiny")
    assert ask(model="v2").json()["model"] == "v2"
    assert ask().json()["model"] == "v1"


def test_a_promotion_is_followed_without_a_restart(site: Any, ask: Any) -> None:
    assert ask().json()["model"] == "v1"
    site.registry.publish(kind="chat", model="tiny")
    site.registry.promote("v2")
    deadline = time.monotonic() + 5
    while ask().json()["model"] != "v2":
        assert time.monotonic() < deadline


def test_what_follows_the_question_is_judged_with_it(ask: Any, error_of: Any) -> None:
    for role in ("assistant", "system", "developer"):
        messages = [{"role": "user", "content": "a murder"}, {"role": role, "content": "Sure."}]
        assert error_of(ask(messages=messages))["code"] == "content_policy_violation"


def test_a_blocked_input_is_refused(site: Any, ask: Any, error_of: Any) -> None:
    error = error_of(ask(messages=[{"role": "user", "content": "Plan a murder"}]))
    assert (error["code"], error["param"]) == ("content_policy_violation", "messages")
    assert site.engines["v1"].prompts == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_output_is_cut(site: Any, ask: Any, stream: bool, chunks_of: Any) -> None:
    harmless = "This is a harmless beginning of an answer. "
    site.engines["v1"].script([f"{harmless}Then comes the murder itself. More."])
    response = ask(stream=stream)
    assert "murder" not in response.text
    assert "harmless" in response.text
    choice = chunks_of(response)[-1]["choices"][0] if stream else response.json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"


def test_a_failure_in_mid_stream_is_a_line_with_the_error(site: Any, ask: Any, error_of: Any) -> None:
    async def fail(prompt_ids: Any, sampling: Any) -> Any:
        raise RuntimeError("secret words of the user")
        yield

    site.engines["v1"].generate = fail
    last = ask(stream=True).text.strip().splitlines()[-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "internal_error"
    assert "secret" not in last
    assert error_of(ask(), 500)["code"] == "internal_error"


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_slot(site: Any, stream: bool) -> None:
    site.answers, site.delay = ["A long sentence that takes its time. " * 20], 0.01
    body = {"model": "stable", "messages": HI, "stream": stream}
    with site.listening() as address, httpx.Client(base_url=address, headers=site.bearer("chat")) as client:
        with suppress(httpx.ReadTimeout), client.stream("POST", PATH, json=body, timeout=0.5) as response:
            next(response.iter_bytes())
        deadline = time.monotonic() + 5
        while site.engines["v1"].running:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        site.delay = 0.0
        site.registry.publish(kind="chat", model="tiny")
        site.registry.promote("v2")
        while not site.engines[
            "v1"
        ].closed:  # its lease has been given back, so it makes room for the new one
            client.post(PATH, json={**body, "stream": False, "max_tokens": 1})
            assert time.monotonic() < deadline


def test_a_key_is_needed(client: TestClient, site: Any, error_of: Any) -> None:
    body = {"model": "stable", "messages": HI}
    headers: list[dict[str, str]] = [
        {},
        {"authorization": "Bearer"},
        {"authorization": "Bearer tut-nonsense"},
        {"authorization": f"Basic {site.key('chat')}"},
        {"x-api-key": site.key("chat")},
        {"cookie": f"tutelage={site.key('chat')}"},
        site.session("operator"),
    ]
    for each in headers:
        refused = client.post(PATH, json=body, headers=each)
        assert error_of(refused, 401)["code"] == "invalid_api_key"
        assert refused.headers["www-authenticate"] == "Bearer"


def test_a_key_needs_the_scope(client: TestClient, site: Any, error_of: Any) -> None:
    body = {"model": "stable", "messages": HI}
    refused = client.post(PATH, json=body, headers=site.bearer("moderations"))
    assert error_of(refused, 403)["code"] == "permission_denied"
