"""One error shape everywhere, whatever arrives; never a 500, and never what somebody wrote in the log."""

from __future__ import annotations

import json
import socket
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from tutelage.errors import Conflict, Denied, RateLimited, Unavailable
from tutelage.server import middleware

JSON = {"content-type": "application/json"}
NESTED = b"[" * 100_000 + b"]" * 100_000


def check(response: httpx.Response, status: int) -> dict[str, Any]:
    assert response.status_code == status, response.text
    error: dict[str, Any] = response.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"]
    return error


BROKEN = [
    b"",
    b"{",
    b"null",
    b"7",
    b"[]",
    b'"text"',
    b"\xff\xfe\x00",
    b'{"\\ud800": 1}',
    b'{"input": {"\\ud800": "\\udfff"}}',
    b'{"model": 1e999, "text": NaN, "input": Infinity, "name": -Infinity}',
    b'{"seed": ' + b"9" * 5000 + b"}",
    NESTED,
    b'{"text": ' + NESTED + b"}",
]


@pytest.mark.parametrize(
    "path", ["/v1/chat/completions", "/v1/moderations", "/api/dialogues", "/api/sign-in"]
)
def test_bodies_that_are_not_what_they_should_be(site: Any, client: TestClient, path: str) -> None:
    headers = {**JSON, **site.bearer()}
    for body in BROKEN:
        check(client.post(path, content=body, headers=headers), 400)


def test_characters_that_cannot_be_stored_do_not_lose_the_text_around_them(
    site: Any, client: TestClient
) -> None:
    turn = client.post("/api/dialogues", content=b'{"text": "a\\ud800b\\u0000c"}', headers=JSON).json()
    shown = client.get(f"/api/dialogues/{turn['dialogue_id']}").json()
    assert shown["messages"][0]["content"] == "a\ufffdbc"
    body = b'{"model": "stable", "messages": [{"role": "user", "content": "a\\ud800b\\u0000c"}]}'
    answer = client.post("/v1/chat/completions", content=body, headers={**JSON, **site.bearer()})
    assert answer.status_code == 200
    assert "a\ufffdbc" in site.renderer.decode(site.engines["v1"].prompts[-1])


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "", "nonsense", "é"])
def test_other_content_types(site: Any, client: TestClient, kind: str) -> None:
    body = json.dumps({"input": "x"}).encode()
    headers = {"content-type": kind.encode(), "authorization": site.bearer()["authorization"].encode()}
    check(client.post("/v1/moderations", content=body, headers=headers), 400)


def test_nothing_of_what_was_sent_is_repeated(site: Any, client: TestClient) -> None:
    body = {"model": "stable", "messages": [{"role": "user", "content": {"secret": "words"}}]}
    response = client.post("/v1/chat/completions", json=body, headers=site.bearer())
    check(response, 400)
    assert "words" not in response.text


def test_unknown_paths_and_methods(client: TestClient) -> None:
    assert check(client.get("/v1/nothing"), 404)["code"] == "not_found"
    assert check(client.get("/nothing"), 404)["code"] == "not_found"
    refused = client.put("/v1/models")
    assert check(refused, 405)["code"] == "method_not_allowed"
    assert refused.headers["allow"] == "GET"
    for path in ("/docs", "/redoc", "/openapi.json"):
        check(client.get(path), 404)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/dialogues"])
def test_a_body_over_the_limit_is_refused_by_its_header(site: Any, client: TestClient, path: str) -> None:
    body = {"text": "a" * 10_000_000}
    assert check(client.post(path, json=body, headers=site.bearer()), 413)["code"] == "request_too_large"


def test_a_body_over_the_limit_is_refused_while_it_comes(site: Any) -> None:
    def endless() -> Any:
        yield b'{"text": "'
        for _ in range(200):
            yield b"a" * 65_536

    with site.listening() as address:
        response = httpx.post(f"{address}/api/dialogues", content=endless(), headers=JSON)
    assert check(response, 413)["code"] == "request_too_large"


def test_a_body_within_the_limit_passes(site: Any, client: TestClient) -> None:
    text = "a" * (middleware.LONGEST_BODY - 100)
    assert check(client.post("/api/dialogues", json={"text": text}), 400)["code"] == "context_length_exceeded"


def test_a_body_that_dawdles_is_refused(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(middleware, "BODY_SECONDS", 0.3)
    with site.listening() as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as slow:
            head = f"POST /api/dialogues HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
            slow.sendall(f"{head}Content-Length: 1000\r\n\r\n{{".encode())
            started = time.monotonic()
            answer = slow.recv(65_536)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - started < 3


def test_huge_headers_and_garbage_end_the_connection_and_nothing_else(site: Any) -> None:
    with site.listening() as address:
        for headers in ({"x-big": "a" * 200_000}, {f"x-{n}": "a" * 1000 for n in range(200)}):
            with suppress(httpx.TransportError):
                assert httpx.get(f"{address}/api/me", headers=headers).status_code in (400, 431)
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as odd:
            odd.sendall(b"\x16\x03\x01 nonsense\r\n\r\n")
            assert odd.recv(1000).startswith(b"HTTP/1.1 400")
        assert httpx.get(f"{address}/api/me").status_code == 200


def test_what_nobody_expected_is_a_plain_500_and_logged_without_content(
    site: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def explode(*args: Any, **more: Any) -> Any:
        raise RuntimeError("the secret words of a user")

    with site.client() as client:
        client.get("/api/me")
        monkeypatch.setattr("tutelage.store.dialogues.list_dialogues", explode)
        error = check(response := client.get("/api/dialogues"), 500)
    assert (error["type"], error["code"]) == ("server_error", "internal_error")
    assert "secret" not in response.text
    assert response.headers["x-request-id"] in caplog.text
    assert "RuntimeError" in caplog.text
    assert "secret" not in caplog.text


def test_errors_for_people_have_their_status_and_their_hint(site: Any) -> None:
    app: FastAPI = site.app()
    cases = {
        "conflict": (Conflict("It is taken.", hint="choose another"), 409),
        "denied": (Denied("no"), 403),
        "busy": (Unavailable("busy"), 503),
        "limited": (RateLimited("slowly", retry_after=2.3), 429),
    }

    @app.get("/raise/{name}")
    async def fail(name: str) -> None:
        raise cases[name][0]

    with TestClient(app, base_url="http://127.0.0.1") as client:
        responses = {name: client.get(f"/raise/{name}") for name in cases}
    for name, (_, status) in cases.items():
        check(responses[name], status)
    assert responses["conflict"].json()["error"]["message"] == "It is taken. Choose another"
    assert responses["limited"].headers["retry-after"] == "3"
    assert responses["busy"].headers["retry-after"] == "5"


def test_an_app_may_show_errors_of_navigations_its_own_way(site: Any) -> None:
    from starlette.responses import HTMLResponse

    app: FastAPI = site.app()
    app.state.error_page = lambda request, failure: HTMLResponse("oh no", status_code=failure.status)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        navigation = {"sec-fetch-mode": "navigate", "sec-fetch-site": "none"}
        assert client.get("/nothing", headers=navigation).text == "oh no"
        assert client.get("/nothing", headers={"accept": "text/html,*/*"}).text == "oh no"
        check(client.get("/nothing", headers={"sec-fetch-mode": "cors", "accept": "text/html"}), 404)
        check(client.get("/v1/nothing", headers=navigation), 404)
