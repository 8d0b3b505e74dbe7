"""What protects browsers: headers, cookies, foreign origins, strange host names."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.server.services import Access


@pytest.mark.parametrize("path", ["/api/me", "/nothing", "/v1/models", "/api/dialogues"])
def test_every_response_carries_the_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'; ")
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert (headers["x-content-type-options"], headers["x-frame-options"]) == ("nosniff", "DENY")
    assert headers["cache-control"] == "no-store"
    assert "access-control-allow-origin" not in headers


def test_the_cookie_over_http(client: TestClient) -> None:
    name, *flags = client.post("/api/dialogues").headers["set-cookie"].split("; ")
    assert name.startswith("tutelage=")
    assert sorted(flags) == ["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax"]


def test_the_cookie_over_https_belongs_to_the_host_alone(site: Any) -> None:
    with TestClient(site.app(), base_url="https://127.0.0.1") as client:
        name, *flags = client.post("/api/dialogues").headers["set-cookie"].split("; ")
        assert name.startswith("__Host-tutelage=")
        assert sorted(flags) == ["HttpOnly", "Max-Age=31536000", "Path=/", "SameSite=Lax", "Secure"]
        assert "set-cookie" not in client.post("/api/dialogues").headers
        plain = name.replace("__Host-", "")
        client.cookies.clear()
        assert "set-cookie" in client.post("/api/dialogues", headers={"cookie": plain}).headers


@pytest.mark.parametrize(
    ("headers", "passes"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"sec-fetch-site": "none"}, True),
        ({"sec-fetch-site": "same-site"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
        ({"origin": "http://127.0.0.1"}, True),
        ({"origin": "http://127.0.0.1:8001"}, False),
        ({"origin": "http://127.0.0.1:8001", "host": "127.0.0.1:8001"}, True),
        ({"origin": "http://localhost", "host": "127.0.0.1"}, False),
        ({"origin": "http://evil.example"}, False),
        ({"origin": "http://127.0.0.1.evil.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": "http://127.0.0.1", "sec-fetch-site": "cross-site"}, False),
    ],
)
def test_what_another_site_sends_is_refused(
    client: TestClient, headers: dict[str, str], passes: bool
) -> None:
    client.get("/api/dialogues")
    statuses = {
        client.post("/api/dialogues", json={"text": "Hi"}, headers=headers).status_code,
        client.post("/api/sign-out", headers=headers).status_code,
        client.delete("/api/dialogues/x", headers=headers).status_code,
    }
    assert statuses == ({201, 204, 404} if passes else {403})
    assert client.get("/api/me", headers=headers).status_code == 200


@pytest.mark.parametrize(
    ("host", "passes"),
    [
        ("127.0.0.1", True),
        ("127.0.0.1:8000", True),
        ("localhost:8000", True),
        ("LocalHost", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example:8000", False),
        ("", False),
    ],
)
def test_a_strange_host_name_is_refused_on_loopback(client: TestClient, host: str, passes: bool) -> None:
    status = client.get("/api/me", headers={"host": host}).status_code
    assert status == (200 if passes else 421)


def test_other_host_names_pass_where_they_are_expected(site: Any) -> None:
    site.access = Access(hosts=frozenset())
    with site.client() as client:
        assert client.get("/api/me", headers={"host": "chat.example"}).status_code == 200
