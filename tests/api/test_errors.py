"""One error shape everywhere, whatever arrives; never a 500, and never what somebody wrote in the log."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
import time
from contextlib import suppress
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from starlette.responses import StreamingResponse
from starlette.testclient import TestClient

from tutelage.errors import Conflict, Denied, RateLimited, Unavailable
from tutelage.server import connections, middleware
from tutelage.server.app import create_app

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
    for method, path in (("GET", "/v1/nothing"), ("POST", "/v1/embeddings"), ("GET", "/v1")):
        error = check(client.request(method, path), 404)
        assert (error["message"], error["code"]) == (f"Invalid URL ({method} {path})", "unknown_url")
    assert check(client.get("/nothing"), 404)["code"] == "not_found"
    for method, path in (("PUT", "/v1/models"), ("DELETE", "/v1/models/v1"), ("GET", "/v1/chat/completions")):
        refused = client.request(method, path)
        error = check(refused, 405)
        assert (error["message"], error["code"]) == (f"Not allowed: {method} {path}", "method_not_supported")
        assert refused.headers["allow"]
    assert check(client.put("/api/model"), 405)["code"] == "method_not_allowed"
    for path in ("/docs", "/redoc", "/openapi.json"):
        check(client.get(path), 404)


def test_a_request_for_the_head_alone_gets_what_the_whole_would_have(site: Any, client: TestClient) -> None:
    for path, headers in (
        ("/health", {}),
        ("/v1/models", site.bearer()),
        ("/v1/models", {}),
        ("/nothing", {}),
    ):
        whole, head = (client.request(method, path, headers=headers) for method in ("GET", "HEAD"))
        assert (head.status_code, head.content) == (whole.status_code, b"")
        assert head.headers["content-length"] == whole.headers["content-length"]
    assert client.head("/api/sign-in").status_code == 405


def test_a_request_keeps_the_name_that_its_client_gave_it(client: TestClient) -> None:
    assert (
        client.get("/v1/models", headers={"x-request-id": "run-7.a:1"}).headers["x-request-id"] == "run-7.a:1"
    )
    for odd in ("", "a" * 129, "a b", "a\tb", "é".encode(), '"><script>'):
        assert client.get("/api/me", headers={"x-request-id": odd}).headers["x-request-id"].startswith("req_")
    names = {client.get("/v1/models").headers["x-request-id"] for _ in range(2)}
    assert len(names) == 2


def test_what_v1_says_beside_the_answer(site: Any, client: TestClient) -> None:
    headers = client.get("/v1/models", headers=site.bearer()).headers
    assert int(headers["openai-processing-ms"]) >= 0
    assert headers["openai-version"] == "2020-10-01"
    assert "openai-version" not in client.get("/api/me").headers


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


def test_a_head_that_dawdles_ends_the_connection(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "HEAD_SECONDS", 0.3)
    with site.listening() as address:
        host, port = address.removeprefix("http://").split(":")
        whole = f"GET /api/me HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
        for first, rest in ((b"", b""), (b"", b"GET /api/me HTTP/1.1\r\nHost: x"), (whole, b"GET /")):
            with socket.create_connection((host, int(port)), timeout=5) as slow:
                slow.sendall(first)
                assert not first or slow.recv(65_536).startswith(b"HTTP/1.1 200")
                slow.sendall(rest)
                started = time.monotonic()
                with suppress(ConnectionResetError):
                    while slow.recv(65_536):
                        pass
                assert 0.1 < time.monotonic() - started < 3
        assert httpx.get(f"{address}/api/me").status_code == 200


def test_a_response_that_nobody_reads_ends_the_connection(site: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "STALLED_SECONDS", 0.3)
    ended = threading.Event()

    async def endless() -> Any:
        try:
            while True:
                yield b"a" * 65_536
                await asyncio.sleep(0)
        finally:
            ended.set()

    def create(**parts: Any) -> FastAPI:
        app = create_app(**parts)
        app.add_api_route("/endless", lambda: StreamingResponse(endless()))
        return app

    site.create = create
    with site.listening() as address:
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=5) as deaf:
            deaf.sendall(f"GET /endless HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
            assert ended.wait(10)


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
