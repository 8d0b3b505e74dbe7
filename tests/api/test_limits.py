"""How much one key and one address may ask of /v1."""

from __future__ import annotations

from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.server.limits import Limits

ANSWER = 21, 28  # tokens of the greeting and of the scripted answer


def ask(client: TestClient, headers: dict[str, str], **body: Any) -> httpx.Response:
    body = {"model": "stable", "messages": [{"role": "user", "content": "Hi"}], **body}
    return client.post("/v1/chat/completions", json=body, headers=headers)


def refusal(response: httpx.Response) -> tuple[str, str]:
    assert response.status_code == 429, response.text
    error = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert int(response.headers["retry-after"]) >= 1
    return error["type"], error["code"]


def test_every_answer_says_what_is_left(site: Any) -> None:
    site.limits = Limits(requests=60, tokens=60)
    with site.client() as client:
        headers = ask(client, site.bearer()).headers
        assert headers["x-ratelimit-limit-requests"] == headers["x-ratelimit-limit-tokens"] == "60"
        assert headers["x-ratelimit-remaining-requests"] == "59"
        assert headers["x-ratelimit-reset-requests"].endswith("ms")
        assert 60 - sum(ANSWER) <= int(headers["x-ratelimit-remaining-tokens"]) <= 60 - ANSWER[0] + 2
        refused = client.post("/v1/chat/completions", json={}, headers=site.bearer())
        assert (refused.status_code, "x-ratelimit-limit-requests" in refused.headers) == (400, True)
        assert "x-ratelimit-limit-requests" not in client.get("/api/me").headers


def test_requests_of_a_key_are_counted(site: Any) -> None:
    site.limits = Limits(requests=2)
    with site.client() as client:
        key = site.bearer()
        assert [client.get("/v1/models", headers=key).status_code for _ in range(2)] == [200, 200]
        refused = client.get("/v1/models", headers=key)
        assert refusal(refused) == ("requests", "rate_limit_exceeded")
        assert refused.headers["x-ratelimit-remaining-requests"] == "0"
        assert int(refused.headers["retry-after"]) <= 30
        assert client.get("/v1/models", headers=site.bearer()).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_tokens_of_a_key_are_counted(site: Any, stream: bool) -> None:
    site.limits = Limits(tokens=60)
    with site.client() as client:
        key = site.bearer()
        assert ask(client, key, stream=stream).status_code == 200
        assert refusal(ask(client, key)) == ("tokens", "rate_limit_exceeded")
        assert client.get("/v1/models", headers=key).status_code == 200


def test_a_prompt_above_the_limit_waits_for_a_full_bucket(site: Any) -> None:
    site.limits = Limits(tokens=10)
    with site.client() as client:
        key = site.bearer()
        assert ask(client, key).status_code == 200
        assert refusal(ask(client, key)) == ("tokens", "rate_limit_exceeded")


def test_a_quota_is_for_a_day(site: Any) -> None:
    site.limits = Limits(daily_tokens=60)
    with site.client() as client:
        key = site.bearer()
        assert ask(client, key).status_code == 200
        refused = ask(client, key)
        assert refusal(refused) == ("insufficient_quota", "insufficient_quota")
        assert int(refused.headers["retry-after"]) > 60


def test_an_address_is_counted_whoever_it_says_it_is(site: Any) -> None:
    site.limits = Limits(address_requests=3)
    with site.client() as client:
        statuses = [
            client.get("/v1/models", headers={"authorization": f"Bearer tut-guess{n}"}).status_code
            for n in range(4)
        ]
        assert statuses == [401, 401, 401, 429]
        assert refusal(client.get("/v1/models", headers=site.bearer())) == ("requests", "rate_limit_exceeded")
        assert client.get("/api/me").status_code == 200


def test_no_limit_is_no_header(site: Any) -> None:
    site.limits = Limits(requests=0, tokens=0, address_requests=0)
    with site.client() as client:
        headers = ask(client, site.bearer()).headers
        assert not [name for name in headers if name.startswith("x-ratelimit")]
