"""GET /api/model: what answers, what is being loaded, and what could not be."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.errors import ModelError


def wait_for(client: TestClient, **expected: Any) -> None:
    pause = threading.Event()
    for _ in range(500):
        shown = client.get("/api/model").json()
        if {key: shown[key] for key in expected} == expected:
            return
        pause.wait(0.01)
    raise AssertionError(shown)


@pytest.fixture(autouse=True)
def _follow_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tutelage.server.app.FOLLOW_SECONDS", 0.05)


def test_the_page_answers_while_the_model_loads_and_turns_wait_for_it(site: Any) -> None:
    load, ready = site.load, threading.Event()

    def slowly(version: Any) -> Any:
        assert ready.wait(10)
        return load(version)

    site.load = slowly
    with site.client() as client:
        wait_for(client, serving={}, loading=["v1"])
        threading.Timer(0.3, ready.set).start()
        turn = client.post("/api/dialogues", json={"text": "Hi"})
        assert turn.status_code == 201
        wait_for(client, serving={"stable": "v1"}, loading=[])


def test_a_promotion_is_followed_without_a_question(site: Any, client: TestClient) -> None:
    wait_for(client, serving={"stable": "v1"})
    site.registry.publish(kind="chat", model="tiny")
    site.registry.promote("v2")
    wait_for(client, serving={"stable": "v2"})


def test_a_version_that_cannot_be_loaded_is_shown_and_the_old_one_answers(
    site: Any, client: TestClient
) -> None:
    load = site.load

    def break_second(version: Any) -> Any:
        if version.name == "v2":
            raise ModelError("the weights are gone")
        return load(version)

    wait_for(client, serving={"stable": "v1"})
    site.load = break_second
    site.registry.publish(kind="chat", model="tiny")
    site.registry.promote("v2")
    wait_for(client, serving={"stable": "v1"}, failed={"v2": "the weights are gone"})
    assert client.post("/api/dialogues", json={"text": "Hi"}).status_code == 201


def test_without_any_version_a_turn_says_what_to_do(site: Any) -> None:
    site.registry.aliases_file.unlink()
    with site.client() as client:
        refused = client.post("/api/dialogues", json={"text": "Hi"})
        assert refused.status_code == 404
        assert "There are v1" in refused.json()["error"]["message"]
