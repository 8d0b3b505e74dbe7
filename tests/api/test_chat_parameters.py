"""POST /v1/chat/completions: what may be asked of it, and what is refused by name."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.errors import ModelError
from tutelage.server.openai.chat_request import ChatRequest
from tutelage.server.openai.completion_request import CompletionRequest
from tutelage.server.openai.parameters import TextRequest


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


def test_stop_strings_end_the_text_and_are_not_returned(ask: Any, chunks_of: Any) -> None:
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
            {"role": "assistant", "content": "Two", "refusal": None, "tool_calls": None, "annotations": []},
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


def test_an_unknown_model_is_not_found(ask: Any, site: Any, error_of: Any) -> None:
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


def test_what_is_not_supported_is_named(ask: Any, error_of: Any) -> None:
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


def test_two_limits_are_one_too_many(ask: Any, error_of: Any) -> None:
    assert error_of(ask(max_tokens=2, max_completion_tokens=3))["param"] == "max_tokens"


def test_wrong_values_name_their_parameter(ask: Any, error_of: Any) -> None:
    for name, value in WRONG:
        param = error_of(ask(**{name: value}))["param"]
        assert param == name or param.startswith((f"{name}.", f"{name}[")), param


def test_what_is_wrong_has_openais_code(ask: Any, error_of: Any) -> None:
    cases: list[tuple[dict[str, Any], str, str]] = [
        ({"n": "2"}, "n", "invalid_type"),
        ({"n": 129}, "n", "invalid_value"),
        ({"stop": 7}, "stop", "invalid_type"),
        ({"stop": ["a"] * 5}, "stop", "invalid_value"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"stop": ["a", 7]}, "stop[1]", "invalid_type"),
        ({"stream_options": {"odd": True}}, "stream_options.odd", "unknown_parameter"),
        ({"logit_bias": {"1": None}}, "logit_bias.1", "invalid_type"),
    ]
    for body, param, code in cases:
        error = error_of(ask(**body))
        assert (error["param"], error["code"]) == (param, code)


def message(**fields: Any) -> dict[str, Any]:
    return {"role": "user", "content": "x", **fields}


UNREADABLE: list[tuple[Any, str, str]] = [
    (message(role="tool"), "messages[0].role", "invalid_value"),
    ({"role": "user"}, "messages[0].content", "missing_required_parameter"),
    ({"content": "x"}, "messages[0].role", "missing_required_parameter"),
    (message(content=None), "messages[0].content", "missing_required_parameter"),
    (message(content=7), "messages[0].content", "invalid_type"),
    (message(content=[7]), "messages[0].content[0]", "invalid_type"),
    (message(content=[{"type": "text", "text": 7}]), "messages[0].content[0].text", "invalid_type"),
    (message(content=[{"text": "x"}]), "messages[0].content[0].type", "missing_required_parameter"),
    (message(content=[{"type": "image_url"}]), "messages[0].content[0]", "unsupported_parameter"),
    (message(content=[{"type": "text"}]), "messages[0].content[0]", "unsupported_parameter"),
    (message(content=[{"type": "refusal"}]), "messages[0].content[0]", "unsupported_parameter"),
    (message(tool_calls=[{}]), "messages[0].tool_calls", "unsupported_parameter"),
    (message(contents="x"), "messages[0].contents", "unknown_parameter"),
    (7, "messages[0]", "invalid_type"),
]


def test_messages_that_cannot_be_read_are_named(ask: Any, error_of: Any) -> None:
    for unreadable, param, code in UNREADABLE:
        error = error_of(ask(messages=[unreadable]))
        assert (error["param"], error["code"]) == (param, code)
    second = error_of(
        ask(messages=[message(), message(content=[{"type": "text", "text": "x"}, {"type": "image_url"}])])
    )
    assert second["param"] == "messages[1].content[1]"


@pytest.mark.parametrize(
    "roles", ["system", "assistant user", "user assistant", "user system", "user developer user"]
)
def test_messages_come_in_any_order(site: Any, ask: Any, roles: str) -> None:
    messages = [{"role": role, "content": f"I am {role}."} for role in roles.split()]
    assert ask(messages=messages).status_code == 200
    prompt = site.engines["v1"].prompts[-1]
    assert all(message["content"] in site.renderer.decode(prompt) for message in messages)


def test_a_template_that_has_no_place_for_the_roles_is_a_refusal(
    ask: Any, site: Any, monkeypatch: pytest.MonkeyPatch, error_of: Any
) -> None:
    def refuse(messages: Any) -> Any:
        raise ModelError("the chat template refuses the roles", hint="take turns")

    monkeypatch.setattr(site.renderer, "prompt", refuse)
    assert error_of(ask())["param"] == "messages"


def test_a_prompt_beyond_the_context_is_refused(ask: Any, error_of: Any) -> None:
    error = error_of(ask(messages=[{"role": "user", "content": "a" * 2000}]))
    assert error["code"] == "context_length_exceeded"


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
