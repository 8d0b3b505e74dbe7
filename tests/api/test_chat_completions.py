"""POST /v1/chat/completions: shapes, parameters, refusals, the filter, clients that leave."""

from __future__ import annotations

import json
import re
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.errors import ModelError
from tutelage.server.openai.chat_request import ChatRequest
from tutelage.server.openai.completion_request import CompletionRequest
from tutelage.server.openai.parameters import TextRequest

PATH = "/v1/chat/completions"
HI = [{"role": "user", "content": "Hi"}]


def chunks_of(response: httpx.Response) -> list[Any]:
    lines = [line.removeprefix("data: ") for line in response.text.splitlines() if line]
    assert lines.pop() == "[DONE]"
    return [json.loads(line) for line in lines]


def error_of(response: httpx.Response, status: int = 400) -> dict[str, Any]:
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert response.status_code == status, error
    return error


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


def test_a_stream_has_openais_chunks(ask: Any) -> None:
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


def test_without_stream_options_no_chunk_speaks_of_usage(ask: Any) -> None:
    assert all("usage" not in each for each in chunks_of(ask(stream=True)))


def test_several_choices_have_an_index_each(site: Any, ask: Any) -> None:
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


def test_the_same_seed_gives_the_same_answer(site: Any, ask: Any) -> None:
    site.engines["v1"].script("abc")
    answers = [ask(seed=seed).json()["choices"][0]["message"]["content"] for seed in (7, 7, 8, -1, 2**63 - 1)]
    assert answers[0] == answers[1] != answers[2]


STOPS: list[tuple[Any, str]] = [
    ("How", "Hello there. "),
    (["zzz", "there"], "Hello "),
    (["e. H"], "Hello ther"),
    ("?!", "Hello there. How can I help?"),
    ("Hello", ""),
]


def test_stop_strings_end_the_text_and_are_not_returned(ask: Any) -> None:
    for stop, expected in STOPS:
        choice = ask(stop=stop).json()["choices"][0]
        assert (choice["message"]["content"], choice["finish_reason"]) == (expected, "stop")
        chunks = chunks_of(ask(stop=stop, stream=True))
        assert "".join(each["choices"][0]["delta"].get("content", "") for each in chunks) == expected
        assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
def test_a_limit_of_tokens_ends_with_length(ask: Any, name: str) -> None:
    choice = ask(**{name: 5}).json()["choices"][0]
    assert (choice["message"]["content"], choice["finish_reason"]) == ("Hello", "length")


def streamed(response: httpx.Response) -> tuple[str, list[Any]]:
    """The text of a stream and the entries of its log-probabilities."""
    choices = [choice for chunk in chunks_of(response) for choice in chunk["choices"]]
    text = "".join(choice["delta"].get("content", "") for choice in choices)
    return text, [entry for choice in choices for entry in (choice["logprobs"] or {}).get("content", [])]


def test_logprobs_come_with_their_tokens(ask: Any) -> None:
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
def test_logprobs_end_where_the_text_ends(ask: Any, stop: Any, kept: str) -> None:
    content = ask(logprobs=True, stop=stop).json()["choices"][0]["logprobs"]["content"]
    assert "".join(entry["token"] for entry in content) == kept
    text, entries = streamed(ask(logprobs=True, stop=stop, stream=True))
    assert "".join(entry["token"] for entry in entries) == text == kept


def test_tokens_that_are_parts_of_characters_show_their_bytes(site: Any, ask: Any) -> None:
    site.engines["v1"].script(["☕"])
    for entries in (
        ask(logprobs=True).json()["choices"][0]["logprobs"]["content"],
        streamed(ask(logprobs=True, stream=True))[1],
    ):
        assert [entry["token"] for entry in entries] == ["\\xe2", "\\x98", "\\x95"]
        assert bytes(byte for entry in entries for byte in entry["bytes"]).decode() == "☕"


def test_the_model_draws_as_it_was_asked_to(site: Any, ask: Any) -> None:
    ask(
        temperature=0.5,
        top_p=0.25,
        presence_penalty=-2,
        frequency_penalty=1.5,
        logit_bias={"5": 100, "258": -1.5},
        max_completion_tokens=9,
        seed=3,
        logprobs=True,
        top_logprobs=20,
    )
    assert site.engines["v1"].samplings[-1] == Sampling(
        temperature=0.5,
        top_p=0.25,
        presence_penalty=-2.0,
        frequency_penalty=1.5,
        logit_bias={5: 100.0, 258: -1.5},
        max_tokens=9,
        seed=3,
        top_logprobs=20,
    )
    ask()
    assert site.engines["v1"].samplings[-1] == Sampling(temperature=1.0, top_p=1.0, max_tokens=None)


def test_all_kinds_of_messages_reach_the_model(site: Any, ask: Any) -> None:
    ask(
        messages=[
            {"role": "system", "content": "Be brief."},
            {
                "role": "developer",
                "content": [{"type": "text", "text": "Be "}, {"type": "text", "text": "kind."}],
            },
            {"role": "user", "content": "One", "name": "ann"},
            {"role": "assistant", "content": "Two", "refusal": None, "tool_calls": None},
            {"role": "user", "content": "Three"},
        ]
    )
    expected = [
        Message("system", "Be brief.\n\nBe kind."),
        Message("user", "One"),
        Message("assistant", "Two"),
        Message("user", "Three"),
    ]
    assert site.engines["v1"].prompts[-1] == site.renderer.prompt(expected)


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


def test_an_unknown_model_is_not_found(ask: Any, site: Any) -> None:
    site.registry.publish(kind="reward", model="tiny")
    for name in ("gpt-4", "v99", "r1", "../../etc/passwd", "a\x00b"):
        error = error_of(ask(model=name), 404)
        assert (error["code"], error["param"]) == ("model_not_found", "model")


OFF = {
    "presence_penalty": 0,
    "frequency_penalty": 0.0,
    "logit_bias": {},
    "tools": [],
    "tool_choice": "none",
    "parallel_tool_calls": True,
    "response_format": {"type": "text"},
    "logprobs": False,
    "top_logprobs": None,
    "n": 1,
    "stop": None,
    "seed": None,
    "user": "ann",
    "metadata": None,
    "store": False,
    "service_tier": "auto",
    "stream_options": None,
    "moderation": None,
    "audio": None,
    "modalities": ["text"],
    "prediction": None,
    "function_call": None,
    "functions": None,
    "reasoning_effort": None,
    "verbosity": None,
    "web_search_options": None,
    "prompt_cache_key": "x",
    "prompt_cache_retention": "24h",
    "safety_identifier": "y",
}


def test_values_that_mean_off_are_accepted(ask: Any) -> None:
    assert ask(**OFF).status_code == 200


UNSUPPORTED: list[tuple[str, Any]] = [
    ("tools", [{"type": "function", "function": {"name": "f"}}]),
    ("tool_choice", "required"),
    ("response_format", {"type": "json_schema", "json_schema": {}}),
    ("response_format", {"type": "json_object"}),
    ("functions", [{}]),
    ("function_call", {"name": "f"}),
    ("audio", {"voice": "x", "format": "wav"}),
    ("prediction", {"type": "content", "content": "x"}),
    ("web_search_options", {}),
    ("reasoning_effort", "high"),
    ("verbosity", "low"),
    ("service_tier", "flex"),
    ("metadata", {"a": "b"}),
    ("modalities", ["audio"]),
    ("store", True),
    ("no_such_parameter", 1),
]


def test_what_is_not_supported_is_named(ask: Any) -> None:
    for name, value in UNSUPPORTED:
        error = error_of(ask(**{name: value}))
        assert error["param"] == name
        assert name in error["message"]


WRONG: list[tuple[str, Any]] = [
    ("n", 0),
    ("n", 129),
    ("n", "2"),
    ("n", True),
    ("temperature", 2.1),
    ("temperature", -1),
    ("temperature", "hot"),
    ("top_p", 1.5),
    ("max_tokens", 0),
    ("max_tokens", 1.5),
    ("seed", 2**70),
    ("stop", ["a"] * 5),
    ("stop", [""]),
    ("stop", 7),
    ("stream", "yes"),
    ("model", 7),
    ("model", ""),
    ("messages", "Hi"),
    ("messages", []),
    ("messages", None),
    ("stream_options", {"include_usage": True}),
    ("stream_options", {"odd": True}),
    ("presence_penalty", 2.1),
    ("frequency_penalty", -3),
    ("top_logprobs", 3),
    ("top_logprobs", 21),
    ("logprobs", 3),
    ("logit_bias", {"50": 101}),
    ("logit_bias", {"259": 1}),
    ("logit_bias", {"-1": 1}),
    ("logit_bias", {"hello": 1}),
    ("logit_bias", {"²": 1}),
    ("logit_bias", {"9" * 5000: 1}),
    ("logit_bias", [1]),
    ("logit_bias", {"1": None}),
    ("moderation", True),
    ("moderation", {"policy": {}}),
    ("moderation", {"model": "x", "policy": {"input": {"mode": "warn"}}}),
    ("prompt_cache_retention", "1h"),
    ("user", 7),
]


def test_two_limits_are_one_too_many(ask: Any) -> None:
    assert error_of(ask(max_tokens=2, max_completion_tokens=3))["param"] == "max_tokens"


def test_wrong_values_name_their_parameter(ask: Any) -> None:
    for name, value in WRONG:
        assert error_of(ask(**{name: value}))["param"].startswith(name)


UNREADABLE: list[tuple[list[Any], str]] = [
    ([{"role": "tool", "content": "x"}], "messages.0.role"),
    ([{"role": "user"}], "messages.0.content"),
    ([{"role": "user", "content": None}], "messages.0.content"),
    (
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "http://x"}}]}],
        "messages.0.content.0",
    ),
    ([{"role": "user", "content": [{"type": "text"}]}], "messages.0.content.0"),
    ([{"role": "assistant", "content": None, "tool_calls": [{}]}], "messages.0.tool_calls"),
    (
        [{"role": "user", "content": "x"}, {"role": "user", "content": [{"type": "refusal"}]}],
        "messages.1.content.0",
    ),
    ([7], "messages.0"),
]


def test_messages_that_cannot_be_read_are_named(ask: Any) -> None:
    for messages, param in UNREADABLE:
        assert error_of(ask(messages=messages))["param"] == param


@pytest.mark.parametrize(
    "roles", ["system", "assistant user", "user assistant", "user system", "user developer user"]
)
def test_messages_come_in_any_order(site: Any, ask: Any, roles: str) -> None:
    messages = [{"role": role, "content": f"I am {role}."} for role in roles.split()]
    assert ask(messages=messages).status_code == 200
    prompt = site.engines["v1"].prompts[-1]
    assert all(message["content"] in site.renderer.decode(prompt) for message in messages)


def test_a_template_that_has_no_place_for_the_roles_is_a_refusal(
    ask: Any, site: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(messages: Any) -> Any:
        raise ModelError("the chat template refuses the roles", hint="take turns")

    monkeypatch.setattr(site.renderer, "prompt", refuse)
    assert error_of(ask())["param"] == "messages"


def test_what_follows_the_question_is_judged_with_it(ask: Any) -> None:
    for role in ("assistant", "system", "developer"):
        messages = [{"role": "user", "content": "a murder"}, {"role": role, "content": "Sure."}]
        assert error_of(ask(messages=messages))["code"] == "content_policy_violation"


def test_a_prompt_beyond_the_context_is_refused(ask: Any) -> None:
    error = error_of(ask(messages=[{"role": "user", "content": "a" * 2000}]))
    assert error["code"] == "context_length_exceeded"


def test_a_blocked_input_is_refused(site: Any, ask: Any) -> None:
    error = error_of(ask(messages=[{"role": "user", "content": "Plan a murder"}]))
    assert (error["code"], error["param"]) == ("content_policy_violation", "messages")
    assert site.engines["v1"].prompts == []


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocked_output_is_cut(site: Any, ask: Any, stream: bool) -> None:
    harmless = "This is a harmless beginning of an answer. "
    site.engines["v1"].script([f"{harmless}Then comes the murder itself. More."])
    response = ask(stream=stream)
    assert "murder" not in response.text
    assert "harmless" in response.text
    choice = chunks_of(response)[-1]["choices"][0] if stream else response.json()["choices"][0]
    assert choice["finish_reason"] == "content_filter"


def test_a_failure_in_mid_stream_is_a_line_with_the_error(site: Any, ask: Any) -> None:
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


def test_a_key_is_needed(client: TestClient, site: Any) -> None:
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


def test_a_key_needs_the_scope(client: TestClient, site: Any) -> None:
    body = {"model": "stable", "messages": HI}
    refused = client.post(PATH, json=body, headers=site.bearer("moderations"))
    assert error_of(refused, 403)["code"] == "permission_denied"


def parameters_in(section: str) -> set[str]:
    """Those that the first column of the section's tables names."""
    guide = (Path(__file__).parents[2] / "docs/guides/api.md").read_text(encoding="utf-8")
    text = guide.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?`) \|", text, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_the_guide_names_every_parameter() -> None:
    assert parameters_in("Parameters of chat completions") == set(ChatRequest.model_fields) | set(
        ChatRequest.OFF
    )
    own = set(CompletionRequest.model_fields) - set(TextRequest.model_fields)
    assert parameters_in("Completions") == own
