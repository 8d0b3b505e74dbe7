"""The application's own description of its routes, and whatever can be made of it: never a 500."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from tutelage.web.app import create_app

EXAMPLES = 300
SENT_HEADERS = ("host", "cookie", "authorization", "content-length")


@pytest.fixture
def everything(site: Any) -> Iterator[TestClient]:
    """The whole application; its user is an operator, its key may do everything."""
    site.create = create_app
    with site.client() as client:
        client.headers.update({**site.session("operator"), **site.bearer()})
        yield client


def test_whatever_the_description_allows_is_answered(everything: TestClient) -> None:
    app: Any = everything.app
    schema = schemathesis.openapi.from_dict(app.openapi())
    operations = [result.ok() for result in schema.get_all_operations()]
    assert len(operations) > 35
    seen: set[str] = set()

    @settings(
        max_examples=EXAMPLES,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
        phases=[Phase.generate],
    )
    @given(data=st.data(), operation=st.sampled_from(operations))
    def send(data: st.DataObject, operation: Any) -> None:
        case = data.draw(operation.as_strategy())
        sent = case.as_transport_kwargs(base_url="http://127.0.0.1")
        headers = {
            name: value
            for name, value in (sent.get("headers") or {}).items()
            if name.lower() not in SENT_HEADERS
        }
        body = {name: sent[name] for name in ("json", "data", "params") if sent.get(name)}
        response = everything.request(
            sent["method"], sent["url"], headers=headers, follow_redirects=False, **body
        )
        seen.add(f"{operation.method} {operation.path}")
        assert response.status_code < 500, (sent["method"], sent["url"], body, response.text)
        if response.status_code >= 400 and response.headers["content-type"].startswith("application/json"):
            assert set(response.json()["error"]) == {"message", "type", "param", "code"}

    send()
    assert len(seen) > len(operations) / 2
