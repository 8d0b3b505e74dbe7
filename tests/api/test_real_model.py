"""/v1 with the model `tiny` behind it: what was asked for reaches the logits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.engine.torch_engine import TorchEngine
from tutelage.models.loading import load_model
from tutelage.rendering import Renderer


class Real:
    """A client of the site."""

    def __init__(self, renderer: Renderer, client: TestClient, headers: dict[str, str]) -> None:
        self.renderer, self.client, self.headers = renderer, client, headers

    def ask(self, **body: Any) -> httpx.Response:
        """Sends for an answer of 12 tokens that does not end by itself."""
        end = {str(self.renderer.end_id): -100}
        body = {"max_tokens": 12, "seed": 1, **body, "logit_bias": {**end, **body.get("logit_bias", {})}}
        body = {"model": "stable", "messages": [{"role": "user", "content": "Hi"}], **body}
        response = self.client.post("/v1/chat/completions", json=body, headers=self.headers)
        assert response.status_code == 200, response.text
        return response

    def answer(self, **body: Any) -> Any:
        """The only choice."""
        return self.ask(**body).json()["choices"][0]

    def text(self, **body: Any) -> str:
        found: str = self.answer(**body)["message"]["content"]
        return found


@pytest.fixture
def real(site: Any, one_thread: None) -> Iterator[Real]:
    loaded = load_model("tiny", site.home, dtype="float32")
    site.load = lambda version: TorchEngine(version.name, loaded)
    with site.client() as client:
        yield Real(loaded.renderer, client, site.bearer())


def token(real: Real, letter: str) -> str:
    return str(real.renderer.completion(letter)[0])


def test_the_same_seed_gives_the_same_answer(real: Real) -> None:
    assert real.text(seed=7) == real.text(seed=7) != real.text(seed=8)


def test_a_bias_chooses_and_forbids(real: Real) -> None:
    assert real.text(logit_bias={token(real, "x"): 100}) == "x" * 12
    likely = {token(real, letter): 100 for letter in "ab"}
    assert real.text(logit_bias={**likely, token(real, "a"): -100}) == "b" * 12


def test_penalties_count_what_was_said(real: Real) -> None:
    favoured = {token(real, letter): 60 for letter in "abcdef"}

    def texts(**penalty: float) -> list[str]:
        return [real.text(logit_bias=favoured, seed=seed, temperature=2, **penalty) for seed in range(6)]

    assert len({tuple(texts()), tuple(texts(presence_penalty=2)), tuple(texts(frequency_penalty=2))}) == 3
    assert len(set(real.text(logit_bias=favoured, temperature=0))) == 1
    assert len(set(real.text(logit_bias=favoured, temperature=0, frequency_penalty=2))) > 1


def test_the_most_probable_tokens_are_named(real: Real) -> None:
    content = real.answer(logprobs=True, top_logprobs=20, temperature=0, logit_bias={})["logprobs"]["content"]
    assert len(content) == 12
    for entry in content:
        probabilities = [each["logprob"] for each in entry["top_logprobs"]]
        assert len(probabilities) == 20
        assert probabilities == sorted(probabilities, reverse=True)
        assert all(each < 0 for each in probabilities)
    assert content[0]["logprob"] == pytest.approx(content[0]["top_logprobs"][0]["logprob"], abs=1e-5)


def test_a_stop_string_ends_it_wherever_it_falls(real: Real) -> None:
    whole = real.text(seed=3)
    stop = whole[4:6]
    choice = real.answer(seed=3, stop=[stop])
    assert (choice["message"]["content"], choice["finish_reason"]) == (whole[: whole.index(stop)], "stop")


def told(choices: list[Any]) -> dict[int, tuple[str, list[Any], list[Any]]]:
    """Text, tokens with their log-probabilities, and ends of each choice, from a whole or from chunks."""
    found: dict[int, tuple[str, list[Any], list[Any]]] = {}
    for choice in choices:
        text, entries, ends = found.get(choice["index"], ("", [], []))
        text += (choice.get("message") or choice["delta"]).get("content", "")
        entries += [
            (each["token"], round(each["logprob"], 3))
            for each in (choice["logprobs"] or {}).get("content", [])
        ]
        found[choice["index"]] = (
            text,
            entries,
            ends + [choice["finish_reason"]] * bool(choice["finish_reason"]),
        )
    return found


def test_a_stream_says_what_the_whole_would_have_said(real: Real, chunks_of: Any) -> None:
    whole = real.text(seed=3)
    for body in (
        {},
        {"stop": [whole[4:6], "\n"]},
        {"logit_bias": {str(real.renderer.end_id): 0}, "max_tokens": 40},
    ):
        asked: dict[str, Any] = {"seed": 3, "n": 3, "logprobs": True, "top_logprobs": 2, **body}
        once = real.ask(**asked).json()
        *chunks, last = chunks_of(real.ask(**asked, stream=True, stream_options={"include_usage": True}))
        assert told([choice for chunk in chunks for choice in chunk["choices"]]) == told(once["choices"])
        assert last["usage"] == once["usage"]
