"""POST /v1/completions: prompts of all kinds, echoes, scores of given texts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.engine.torch_engine import TorchEngine
from tutelage.models.loading import LoadedModel, load_model

ANSWER = "Hello there. How can I help?"


@pytest.fixture
def complete(site: Any, client: TestClient) -> Callable[..., httpx.Response]:
    headers = site.bearer("chat")

    def complete(**body: Any) -> httpx.Response:
        return client.post(
            "/v1/completions", json={"model": "stable", "prompt": "Say", **body}, headers=headers
        )

    return complete


def test_a_whole_completion_has_openais_shape(complete: Any) -> None:
    body = complete(max_tokens=100).json()
    assert set(body) == {"id", "object", "created", "model", "choices", "usage", "system_fingerprint"}
    assert (body["id"][:5], body["object"], body["model"]) == ("cmpl-", "text_completion", "v1")
    assert body["choices"] == [{"text": ANSWER, "index": 0, "logprobs": None, "finish_reason": "stop"}]
    assert body["usage"] == {"prompt_tokens": 3, "completion_tokens": 28, "total_tokens": 31}


def test_sixteen_tokens_are_written_unless_more_are_asked_for(complete: Any) -> None:
    choice = complete().json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (ANSWER[:16], "length")


def test_a_stream_has_the_shape_of_the_whole(complete: Any, chunks_of: Any) -> None:
    *chunks, last = chunks_of(complete(stream=True, max_tokens=100, stream_options={"include_usage": True}))
    assert {(each["id"], each["object"], each["usage"]) for each in chunks} == {
        (last["id"], "text_completion", None)
    }
    assert "".join(each["choices"][0]["text"] for each in chunks) == ANSWER
    assert [each["choices"][0]["finish_reason"] for each in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert (last["choices"], last["usage"]["total_tokens"]) == ([], 31)


@pytest.mark.parametrize(
    ("prompt", "read"),
    [
        ("Say", ["Say"]),
        (["Say", "it"], ["Say", "it"]),
        ([86, 68], None),
        ([[86, 68], [86]], None),
        (["<|im_start|>user\nHi<|im_end|>"], ["<|im_start|>user\nHi<|im_end|>"]),
    ],
)
def test_prompts_are_text_or_tokens_one_or_many(site: Any, complete: Any, prompt: Any, read: Any) -> None:
    body = complete(prompt=prompt).json()
    asked = site.engines["v1"].prompts
    expected = (
        [site.renderer.tokens(text) for text in read] if read else ([prompt] if prompt[0] == 86 else prompt)
    )
    assert asked == expected
    assert [choice["index"] for choice in body["choices"]] == list(range(len(expected)))
    assert body["usage"]["prompt_tokens"] == sum(map(len, expected))


def test_no_prompt_begins_a_document(site: Any, complete: Any) -> None:
    for nothing in (None, ""):
        assert complete(prompt=nothing).status_code == 200
        assert site.engines["v1"].prompts[-1] == [site.renderer.end_id]


def test_several_choices_of_several_prompts(site: Any, complete: Any, chunks_of: Any) -> None:
    site.engines["v1"].script(["one", "two"])
    choices = complete(prompt=["a", "b"], n=2, best_of=2, seed=0).json()["choices"]
    assert [(each["index"], each["text"]) for each in choices] == [
        (0, "one"),
        (1, "two"),
        (2, "one"),
        (3, "two"),
    ]
    chunks = chunks_of(complete(prompt=["a", "b"], n=2, seed=0, stream=True))
    texts = ["", "", "", ""]
    for chunk in chunks:
        texts[chunk["choices"][0]["index"]] += chunk["choices"][0]["text"]
    assert texts == ["one", "two", "one", "two"]


def test_an_echo_stands_before_the_text(complete: Any, chunks_of: Any) -> None:
    assert complete(echo=True, max_tokens=5).json()["choices"][0]["text"] == "SayHello"
    chunks = chunks_of(complete(echo=True, max_tokens=5, stream=True))
    assert [chunk["choices"][0]["text"] for chunk in chunks][:2] == ["Say", "Hello"]


def test_logprobs_of_what_was_drawn(complete: Any, chunks_of: Any) -> None:
    logprobs = complete(logprobs=1, max_tokens=2, stop="zzz").json()["choices"][0]["logprobs"]
    assert logprobs == {
        "tokens": ["H", "e"],
        "token_logprobs": [0.0, 0.0],
        "top_logprobs": [{"H": 0.0}, {"e": 0.0}],
        "text_offset": [0, 1],
    }
    streamed = [
        chunk["choices"][0]["logprobs"] for chunk in chunks_of(complete(logprobs=0, echo=True, stream=True))
    ]
    tokens = [token for logprobs in streamed if logprobs for token in logprobs["tokens"]]
    offsets = [offset for logprobs in streamed if logprobs for offset in logprobs["text_offset"]]
    assert "".join(tokens) == "Say" + ANSWER[:16]
    assert offsets == list(range(19))


def test_a_prompt_can_be_scored_alone(complete: Any) -> None:
    body = complete(prompt=["Say ☕"], echo=True, max_tokens=0, logprobs=1).json()
    choice = body["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("Say ☕", "length")
    assert choice["logprobs"]["tokens"] == ["S", "a", "y", " ", "bytes:\\xe2", "bytes:\\x98", "bytes:\\x95"]
    assert choice["logprobs"]["token_logprobs"] == [None, *[0.0] * 6]
    assert choice["logprobs"]["top_logprobs"][0] is None
    assert choice["logprobs"]["text_offset"] == [0, 1, 2, 3, 4, 4, 4]
    assert body["usage"] == {"prompt_tokens": 7, "completion_tokens": 0, "total_tokens": 7}


def test_a_blocked_prompt_is_not_continued_and_others_are(complete: Any) -> None:
    choices = complete(prompt=["a murder", "a cake"]).json()["choices"]
    assert [(each["text"], each["finish_reason"]) for each in choices] == [
        ("", "content_filter"),
        (ANSWER[:16], "length"),
    ]
    scored = complete(prompt="a murder", echo=True, logprobs=1, max_tokens=1).json()["choices"][0]
    assert (scored["finish_reason"], len(scored["logprobs"]["tokens"])) == ("length", 9)


def test_a_blocked_text_is_cut(site: Any, complete: Any) -> None:
    site.engines["v1"].script(["This is a harmless beginning of a text. Then comes the murder itself. More."])
    choice = complete(max_tokens=100, logprobs=1).json()["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == (
        "This is a harmless beginning of a text. ",
        "content_filter",
    )
    assert "".join(choice["logprobs"]["tokens"]) == choice["text"]


WRONG: list[tuple[str, Any]] = [
    ("prompt", 7),
    ("prompt", []),
    ("prompt", [[]] * 129),
    ("prompt", ["a", 7]),
    ("prompt", [True]),
    ("prompt", [-1]),
    ("prompt", [259]),
    ("prompt", [[86, 259]]),
    ("prompt", {"a": 1}),
    ("prompt", "a" * 2000),
    ("suffix", "x"),
    ("best_of", 2),
    ("max_tokens", 0),
    ("max_tokens", -1),
    ("logprobs", True),
    ("logprobs", 21),
    ("n", 129),
    ("stop", ["a"] * 5),
    ("messages", []),
    ("temperature", 3),
]


def test_what_is_not_supported_is_named(complete: Any, error_of: Any) -> None:
    for name, value in WRONG:
        param = error_of(complete(**{name: value}))["param"]
        assert param == name or param.startswith(f"{name}[")


def test_an_unknown_model_is_not_found(complete: Any, error_of: Any) -> None:
    assert error_of(complete(model="davinci"), 404)["code"] == "model_not_found"


class Real:
    """The site with the model `tiny` behind it."""

    def __init__(self, site: Any, loaded: LoadedModel, client: TestClient) -> None:
        self.renderer, self.client, self.headers = loaded.renderer, client, site.bearer("chat")

    def post(self, path: str, **body: Any) -> Any:
        response = self.client.post(f"/v1/{path}", json={"model": "stable", **body}, headers=self.headers)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture
def real(site: Any) -> Iterator[Real]:
    loaded = load_model("tiny", site.home, dtype="float32")
    site.load = lambda version: TorchEngine(version.name, loaded)
    with site.client() as client:
        yield Real(site, loaded, client)


def loglikelihood(choice: dict[str, Any], context: int) -> tuple[float, bool]:
    """As evaluation harnesses read it: the last entry is the one token that had to be asked for."""
    logprobs = choice["logprobs"]
    own, tops = logprobs["token_logprobs"][context:-1], logprobs["top_logprobs"][context:-1]
    return sum(own), all(each == max(top.values()) for each, top in zip(own, tops, strict=True))


def test_harnesses_can_score_texts(real: Real) -> None:
    context, options = "The sky is ", ["blue", "green", "of no colour"]
    prompts = [real.renderer.tokens(context + option) for option in options]
    body = real.post("completions", prompt=prompts, echo=True, max_tokens=1, logprobs=1, temperature=0)
    for option, prompt, choice in zip(options, prompts, body["choices"], strict=True):
        alone = real.post("completions", prompt=prompt, echo=True, max_tokens=0, logprobs=1)["choices"][0]
        found, greedy = loglikelihood(choice, len(context))
        assert found == pytest.approx(sum(alone["logprobs"]["token_logprobs"][len(context) :]), abs=1e-4)
        assert len(choice["logprobs"]["tokens"]) == len(prompt) + 1
        assert -20 * len(option) < found < 0
        assert not greedy


def test_what_the_model_drew_scores_as_greedy_even_where_it_ended_at_once(real: Real) -> None:
    prompt = real.renderer.tokens("Once upon")
    end = str(real.renderer.end_id)
    drawn = real.post("completions", prompt=prompt, max_tokens=5, temperature=0, logit_bias={end: -100})
    whole = "Once upon" + drawn["choices"][0]["text"]
    asked: dict[str, Any] = {"echo": True, "max_tokens": 1, "logprobs": 1, "temperature": 0}
    for bias in (-100, 100):
        scored = real.post("completions", prompt=whole, logit_bias={end: bias}, **asked)["choices"][0]
        assert len(scored["logprobs"]["tokens"]) == len(real.renderer.tokens(whole)) + 1
        assert loglikelihood(scored, len(prompt))[1]
        assert all(math.isfinite(each) for each in scored["logprobs"]["token_logprobs"][1:])
