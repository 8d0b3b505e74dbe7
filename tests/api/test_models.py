"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from starlette.testclient import TestClient


def test_versions_and_aliases_are_listed_reward_models_are_not(site: Any, client: TestClient) -> None:
    site.registry.publish(kind="chat", model="tiny")
    site.registry.publish(kind="reward", model="tiny")
    site.registry.promote("r1", "judge")
    body = client.get("/v1/models", headers=site.bearer("chat")).json()
    assert body["object"] == "list"
    assert [each["id"] for each in body["data"]] == ["stable", "latest", "v1", "v2"]
    assert all(set(each) == {"id", "object", "created", "owned_by"} for each in body["data"])


def test_one_name_is_shown(site: Any, client: TestClient) -> None:
    headers = site.bearer("chat")
    for name in ("v1", "stable", "latest"):
        shown = client.get(f"/v1/models/{name}", headers=headers).json()
        assert (shown["id"], shown["object"]) == (name, "model")


def test_unknown_names_are_not_found(site: Any, client: TestClient) -> None:
    site.registry.publish(kind="reward", model="tiny")
    for name in ("v9", "r1", "gpt-4", "..%2Fv1", "%00"):
        refused = client.get(f"/v1/models/{name}", headers=site.bearer("chat"))
        assert (refused.status_code, refused.json()["error"]["type"]) == (404, "invalid_request_error")


def test_every_name_of_the_list_answers(site: Any, client: TestClient) -> None:
    site.registry.publish(kind="chat", model="tiny")
    headers = site.bearer("chat")
    listed = [each["id"] for each in client.get("/v1/models", headers=headers).json()["data"]]
    body = {"messages": [{"role": "user", "content": "Hi"}]}
    spoke = {
        name: client.post("/v1/chat/completions", json={**body, "model": name}, headers=headers).json()[
            "model"
        ]
        for name in listed
    }
    assert spoke == {"stable": "v1", "latest": "v2", "v1": "v1", "v2": "v2"}


def test_a_version_that_cannot_be_read_does_not_hide_the_others(site: Any, client: TestClient) -> None:
    broken = site.registry.publish(kind="chat", model="tiny").name
    (site.registry.folder / broken / "manifest.json").write_text("{")
    body = client.get("/v1/models", headers=site.bearer("chat")).json()
    assert [each["id"] for each in body["data"]] == ["stable", "v1"]


def test_a_key_is_needed(client: TestClient) -> None:
    for path in ("/v1/models", "/v1/models/v1"):
        assert client.get(path).json()["error"]["code"] == "invalid_api_key"
