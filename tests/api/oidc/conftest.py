"""A server that knows a provider, and the way there and back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from tutelage.config import check
from tutelage.server.oidc.provider import Provider
from tutelage.server.oidc.settings import ProviderSettings
from tutelage.server.services import Access
from tutelage.web.app import create_app


@pytest.fixture
def known(site: Any, fake_provider: Any) -> Callable[..., None]:
    """Makes the provider known to the server, under these settings."""

    def configure(key: str = "example", **settings: Any) -> None:
        found = check(fake_provider.settings(**settings), ProviderSettings)
        site.providers = {**site.providers, key: Provider(key, found)}

    site.create, site.access = create_app, Access(guests=False)
    configure()
    return configure


@pytest.fixture
def client(site: Any, known: Any) -> Iterator[TestClient]:
    with site.client() as running:
        yield running


class Way:
    """The way to the provider and back, step by step or whole."""

    @staticmethod
    def begin(client: TestClient, query: str = "", key: str = "example") -> str:
        """Click on "Continue with"; the address at the provider."""
        sent = client.get(f"/sign-in/{key}{query}", follow_redirects=False)
        assert sent.status_code == 303, sent.text
        return str(sent.headers["location"])

    @staticmethod
    def approve(address: str) -> str:
        """What the provider has the browser ask us for."""
        back = httpx.get(address)
        assert back.status_code == 303, back.text
        return back.headers["location"].removeprefix("http://127.0.0.1")

    @staticmethod
    def come(client: TestClient, query: str = "", key: str = "example") -> httpx.Response:
        """The whole way there and back."""
        return client.get(Way.approve(Way.begin(client, query, key)), follow_redirects=False)


@pytest.fixture
def way() -> type[Way]:
    return Way


@pytest.fixture
def me() -> Callable[[TestClient], dict[str, Any] | None]:
    """Who is signed in."""
    return lambda client: client.get("/api/me").json()["user"]
