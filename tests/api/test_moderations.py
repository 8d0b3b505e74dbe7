"""POST /v1/moderations."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.testclient import TestClient

from tutelage.moderation.categories import CATEGORIES


def test_one_result_an_input_with_all_categories(site: Any, client: TestClient) -> None:
    body = client.post(
        "/v1/moderations", json={"input": ["hello", "a murder"]}, headers=site.bearer("moderations")
    ).json()
    assert set(body) == {"id", "model", "results"}
    assert body["id"].startswith("modr-")
    harmless, harmful = body["results"]
    assert (harmless["flagged"], harmful["flagged"]) == (False, True)
    assert [category for category, found in harmful["categories"].items() if found] == ["violence"]
    for part in ("categories", "category_scores", "category_applied_input_types"):
        assert tuple(harmful[part]) == CATEGORIES
    assert harmful["category_scores"]["violence"] == 0.99


def test_typed_parts_are_one_input(site: Any, client: TestClient) -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "murder"}]
    body = client.post("/v1/moderations", json={"input": parts}, headers=site.bearer("moderations")).json()
    assert [each["flagged"] for each in body["results"]] == [True]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"input": 7},
        {"input": []},
        {"input": ["x"] * 129},
        {"input": [{"type": "image_url", "image_url": {"url": "http://x"}}]},
        {"input": "x", "policy": {}},
    ],
)
def test_what_cannot_be_judged_is_refused(site: Any, client: TestClient, body: Any) -> None:
    refused = client.post("/v1/moderations", json=body, headers=site.bearer("moderations"))
    assert (refused.status_code, set(refused.json()["error"])) == (400, {"message", "type", "param", "code"})


def test_a_key_with_the_scope_is_needed(site: Any, client: TestClient) -> None:
    assert client.post("/v1/moderations", json={"input": "x"}).status_code == 401
    refused = client.post("/v1/moderations", json={"input": "x"}, headers=site.bearer("chat"))
    assert refused.status_code == 403
