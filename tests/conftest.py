"""The order of the whole suite."""

from __future__ import annotations

from pathlib import Path

import pytest

PAGES = Path(__file__).with_name("pages")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests in a browser run last: Playwright keeps an event loop in the main thread until the session ends."""
    items.sort(key=lambda item: item.path.is_relative_to(PAGES))
