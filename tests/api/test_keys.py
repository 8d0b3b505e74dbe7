"""Keys of programs: one header, one scheme, and no door but those of `/v1`."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from starlette.testclient import TestClient

from tutelage.server.services import Access
from tutelage.store import accounts
from tutelage.web.app import create_app


def test_a_key_is_nobody_to_the_pages(site: Any) -> None:
    site.create, site.access = create_app, Access(guests=False)
    with site.client() as client:
        app: Any = client.app
        routes = [
            (method, each.path) for each in iter_route_contexts(app.routes) for method in each.methods or ()
        ]
        key, closed = site.bearer(), 0
        for method, path in routes:
            if path.startswith("/v1/"):
                continue
            path = path.replace("{", "").replace("}", "")
            client.cookies.clear()
            alone = client.request(method, path, follow_redirects=False).status_code
            client.cookies.clear()
            assert client.request(method, path, headers=key, follow_redirects=False).status_code == alone, (
                path
            )
            closed += alone == 401
        assert closed > 40


@pytest.mark.parametrize("name", ["api-key", "x-api-key", "X-Goog-Api-Key", "Proxy-Authorization"])
def test_keys_in_other_headers_are_refused_in_words(site: Any, client: TestClient, name: str) -> None:
    for secret in (site.key(), f"Bearer {site.key()}"):
        refused = client.get("/v1/models", headers={name: secret})
        error = refused.json()["error"]
        assert (refused.status_code, error["code"]) == (401, "invalid_api_key")
        assert error["message"] == (
            f"keys are not read from {name.lower()}. Send one header Authorization: Bearer tut-…"
        )


def test_another_header_neither_helps_nor_hinders(site: Any, client: TestClient) -> None:
    key = site.key()
    headers = {"authorization": f"bearer  {key} ", "x-api-key": "tut-wrong", "cookie": "tutelage=x"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    headers = {"authorization": "Bearer tut-wrong", "x-api-key": key}
    assert client.get("/v1/models", headers=headers).status_code == 401


def test_one_of_two_keys_is_not_chosen(site: Any, client: TestClient) -> None:
    twice = [("authorization", f"Bearer {site.key()}"), ("authorization", "Bearer tut-wrong")]
    for headers in (twice, twice[::-1], [twice[0], twice[0]]):
        assert client.get("/v1/models", headers=headers).status_code == 401


@pytest.mark.parametrize(
    "sent", ["{}", "Basic {}", "Bearer", "Bearer ", "Token {}", "Bearer {}x", "Bearer {} {}", "é"]
)
def test_what_is_no_bearer_is_refused(site: Any, client: TestClient, sent: str) -> None:
    headers = {"authorization": sent.replace("{}", site.key()).encode()}
    assert client.get("/v1/models", headers=headers).json()["error"]["code"] == "invalid_api_key"


def test_a_revoked_key_is_refused(site: Any, client: TestClient) -> None:
    with site.store.write() as tx:
        key, secret = accounts.create_key(tx, name="test", scopes=["chat"])
        headers = {"authorization": f"Bearer {secret}"}
    assert client.get("/v1/models", headers=headers).status_code == 200
    with site.store.write() as tx:
        accounts.revoke_key(tx, key.id)
    assert client.get("/v1/models", headers=headers).status_code == 401
