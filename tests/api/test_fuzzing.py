"""Whatever JSON is sent to whatever route: an answer or an error of the one shape, never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.routing import iter_route_contexts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tutelage.web.app import create_app

WORDS = [
    *("text", "user", "assistant", "stable", "v1", "r1", "up", "down", "missed", "mistake"),
    *("operator", "trainer", "chat", "accepted", "draft"),
]
TEXTS = st.sampled_from(WORDS) | st.text(max_size=12)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=8,
)


@pytest.fixture
def everything(site: Any) -> Iterator[TestClient]:
    """The whole application; its user is an operator."""
    site.create = create_app
    with site.client() as client:
        client.headers.update({**site.session("operator"), **site.bearer()})
        yield client


def test_no_json_is_too_odd(site: Any, everything: TestClient) -> None:
    app: Any = everything.app
    routes = [
        (method, each.path, _fields(each))
        for each in iter_route_contexts(app.routes)
        for method in each.methods
        if method in ("POST", "PUT", "PATCH")
    ]
    assert len([fields for _, _, fields in routes if fields]) > 15

    @settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        route=st.sampled_from(routes), name=st.sampled_from(["v1", "x", "%00", "%2e%2e", "é"]), data=st.data()
    )
    def send(route: Any, name: str, data: st.DataObject) -> None:
        method, path, fields = route
        known = st.fixed_dictionaries({}, optional=dict.fromkeys(fields, VALUES))
        body = data.draw(known | st.dictionaries(TEXTS, VALUES, max_size=3))
        path = "/".join(name if part.startswith("{") else part for part in path.split("/"))
        response = everything.request(method, path, json=body if _finite(body) else {})
        assert response.status_code < 500, (method, path, body, response.text)
        if response.status_code >= 400 and "application/json" in response.headers["content-type"]:
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    send()


def test_no_path_or_query_is_too_odd(site: Any, everything: TestClient) -> None:
    app: Any = everything.app
    paths = [each.path for each in iter_route_contexts(app.routes) if "GET" in each.methods]
    odd = st.sampled_from(
        ["%00", "%ff", "..%2f..", "a" * 2000, "-1", "9" * 30, "é", "'", "%7B%7B", "null", "r1"]
    )

    @settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(
        path=st.sampled_from(paths),
        value=odd,
        key=st.sampled_from(
            [
                "limit",
                "before",
                "leaf_id",
                "after",
                "message",
                "draft",
                "status",
                "version",
                "next",
                "current",
            ]
        ),
    )
    def get(path: str, value: str, key: str) -> None:
        path = "/".join(value if part.startswith("{") else part for part in path.split("/"))
        response = everything.get(f"{path}?{key}={value}")
        assert response.status_code < 500, (path, key, value, response.text)

    get()


def _finite(value: Any) -> bool:
    """Whether Python's JSON writer takes it: not NaN, infinities or lone surrogates, which have tests of their own."""
    if isinstance(value, float):
        return value - value == 0
    if isinstance(value, dict):
        return all(_finite(key) and _finite(item) for key, item in value.items())
    return all(map(_finite, value)) if isinstance(value, list) else True


def _fields(route: Any) -> list[str]:
    """The names that a route's body may have."""
    body = getattr(route.original_route, "body_field", None)
    model = None if body is None else body.field_info.annotation
    return list(getattr(model, "model_fields", {}))
