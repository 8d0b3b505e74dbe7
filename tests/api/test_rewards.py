"""POST /v1/rewards."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

PATH = "/v1/rewards"
HI = {"role": "user", "content": "Hi"}


def dialogue(answer: str) -> dict[str, Any]:
    return {"messages": [HI, {"role": "assistant", "content": answer}]}


@pytest.fixture
def judged(site: Any) -> Any:
    """A site with two reward versions, the alias `judge` on the first."""
    for _ in range(2):
        site.registry.publish(kind="reward", model="tiny")
    site.registry.promote("r1", alias="judge")
    return site


def test_one_reward_an_input_in_order(judged: Any, client: TestClient) -> None:
    body = {"model": "r1", "input": [dialogue("four"), dialogue(""), dialogue("two")]}
    found = client.post(PATH, json=body, headers=judged.bearer("rewards")).json()
    assert (found["object"], found["model"], found["temperature"]) == ("list", "r1", 2.0)
    assert [(each["index"], each["reward"]) for each in found["data"]] == [(0, -4.0), (1, 0.0), (2, -3.0)]
    assert {each["deviation"] for each in found["data"]} == {0.25}
    prompt, completion = judged.scorers["r1"].asked[0]
    assert "Hi" in judged.renderer.decode(prompt)
    assert judged.renderer.decode(completion) == "four"
    assert completion[-1] == judged.renderer.end_id
    tokens = sum(len(p) + len(c) for p, c in judged.scorers["r1"].asked)
    assert found["usage"] == {"prompt_tokens": tokens, "completion_tokens": 0, "total_tokens": tokens}


@pytest.mark.parametrize(
    ("asked", "version"), [("latest", "r2"), (None, "r2"), ("judge", "r1"), ("r1", "r1")]
)
def test_the_version_that_scored_is_named(
    judged: Any, client: TestClient, asked: str | None, version: str
) -> None:
    body = {"input": [dialogue("x")]} | ({"model": asked} if asked else {})
    assert client.post(PATH, json=body, headers=judged.bearer("rewards")).json()["model"] == version


def test_a_version_is_loaded_once_and_leaves_for_another(judged: Any, client: TestClient) -> None:
    headers = judged.bearer("rewards")
    for model in ("r1", "r1", "r2"):
        assert client.post(PATH, json={"model": model, "input": [dialogue("x")]}, headers=headers).is_success
    assert len(judged.scorers["r1"].asked) == 2
    assert len(judged.scorers["r2"].asked) == 1


@pytest.mark.parametrize("model", ["r9", "v1", "stable", "nobody"])
def test_what_is_no_reward_model_is_not_found(judged: Any, client: TestClient, model: str) -> None:
    refused = client.post(
        PATH, json={"model": model, "input": [dialogue("x")]}, headers=judged.bearer("rewards")
    )
    assert (refused.status_code, refused.json()["error"]["code"]) == (404, "model_not_found")


def test_without_any_reward_version_it_is_said(site: Any, client: TestClient) -> None:
    refused = client.post(PATH, json={"input": [dialogue("x")]}, headers=site.bearer("rewards"))
    assert refused.status_code == 404
    message = refused.json()["error"]["message"]
    assert message == "There is no reward model yet. A round makes one: `tutelage improve RECIPE`."


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": []},
        {"input": "text"},
        {"input": [{"messages": [HI]}]},
        {"input": [{"messages": [HI, HI]}]},
        {"input": [{"messages": [HI, {"role": "assistant", "content": "x"}, HI]}]},
        {"input": [{"messages": [HI, {"role": "bard", "content": "x"}]}]},
        {"input": [dialogue("x")] * 257},
        {"input": [dialogue("x")], "gain": 2},
    ],
)
def test_what_cannot_be_scored_is_refused(judged: Any, client: TestClient, body: Any) -> None:
    refused = client.post(PATH, json=body, headers=judged.bearer("rewards"))
    assert (refused.status_code, set(refused.json()["error"])) == (400, {"message", "type", "param", "code"})


@pytest.mark.parametrize("length", [2000, 1_000_000])
def test_a_dialogue_past_the_context_is_named_and_never_cut(
    judged: Any, client: TestClient, length: int
) -> None:
    body = {"input": [dialogue("x"), dialogue("y" * length)]}
    refused = client.post(PATH, json=body, headers=judged.bearer("rewards"))
    error = refused.json()["error"]
    assert (refused.status_code, error["code"], error["param"]) == (
        400,
        "context_length_exceeded",
        "input[1].messages",
    )
    assert judged.scorers["r2"].asked == []


def test_a_key_with_the_scope_is_needed(judged: Any, client: TestClient) -> None:
    body = {"input": [dialogue("x")]}
    assert client.post(PATH, json=body).status_code == 401
    assert client.post(PATH, json=body, headers=judged.bearer("chat", "moderations")).status_code == 403
    assert client.post(PATH, json=body, headers=judged.session("operator")).status_code == 401
