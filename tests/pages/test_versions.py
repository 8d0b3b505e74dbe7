"""Operators promote, roll back and compare versions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tutelage.registry import ModelVersion
from tutelage.web.lineage import draw

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]
FAILED = {
    "gate": {
        "outcome": "failed",
        "checks": [
            {"name": "wins", "outcome": "failed", "shown": "48 % (40 to 56 %)", "wanted": "above 50 %"},
            {"name": "kl", "outcome": "passed", "shown": "3 nats", "wanted": "at most 30"},
        ],
    }
}


@pytest.fixture
def refused(site: Any) -> ModelVersion:
    """A version that did not pass the gate."""
    version: ModelVersion = site.registry.publish(
        kind="chat", model="tiny", parents=["v1"], evaluation=FAILED
    )
    return version


def test_what_did_not_pass_the_gate_is_promoted_only_knowingly(
    visit: Visit, site: Any, refused: ModelVersion
) -> None:
    with site.client("operator") as operator:
        path = f"/operate/versions/{refused.name}/promote"
        answer = operator.post(path, headers={"accept": "application/json"})
        assert answer.status_code == 409
        assert "48 % (40 to 56 %)" in answer.json()["error"]["message"]
    page = visit("/operate", role="operator")
    card = page.locator(f"#{refused.name}")
    expect(card).to_contain_text("failed")
    expect(card).to_contain_text("48 % (40 to 56 %)")
    card.get_by_role("button", name="Promote").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Promote anyway").press("Enter")
    expect(page.get_by_text(f"{refused.name} answers in the chat.")).to_be_visible()
    page.get_by_role("button", name="Roll back to v1").press("Enter")
    page.get_by_role("dialog").get_by_role("button", name="Roll back").press("Enter")
    expect(page.get_by_text("v1 answers in the chat.")).to_be_visible()


def test_a_version_is_compared_in_the_chat_until_it_is_clear(visit: Visit, site: Any) -> None:
    page = visit("/operate", role="operator")
    card = page.locator("#v2")
    card.get_by_text("Compare it in the chat").press("Enter")
    card.get_by_label("Share of new conversations").fill("50")
    card.get_by_label("Share of turns that show both").fill("100")
    card.get_by_role("button", name="Start").press("Enter")
    expect(page.get_by_text("v2 answers 50 % of new conversations")).to_be_visible()
    expect(page.get_by_text("Not clear yet.")).to_be_visible()
    expect(page.get_by_text("At 100 % of turns readers see both and choose.")).to_be_visible()
    reader = visit(role="user")
    reader.get_by_role("textbox", name="Your message").fill("Which?")
    reader.keyboard.press("Enter")
    expect(reader.locator(".pair[data-undecided] [data-status='complete']")).to_have_count(2)
    expect(reader.locator(".pair")).to_contain_text("Two versions of the model answer.")
    reader.get_by_role("button", name="Answer 2 is better").click()
    expect(reader.locator(".beside")).to_contain_text("You found this answer better")
    with site.client("operator") as operator:
        again = operator.post("/operate/experiments", json={"treatment": "v2", "percent": 10})
        assert again.status_code == 409
    page.get_by_role("button", name="End the comparison").press("Enter")
    expect(page.get_by_text("v2 answers 50 % of new conversations")).to_have_count(0)
    page.get_by_text("Earlier comparisons").press("Enter")
    expect(page.get_by_text("Ended before it was clear.").first).to_be_visible()


def test_the_family_is_drawn_with_a_line_from_each_parent(visit: Visit, site: Any) -> None:
    graph = draw(site.registry.list(), stable="v1")
    by_name = {node.name: node for node in graph.nodes}
    assert by_name["v2"].x > by_name["v1"].x
    assert by_name["v1"].stable
    children = [version for version in site.registry.list() if version.parents]
    assert len(graph.lines) == sum(len(version.parents) for version in children)
    page = visit("/operate", role="operator")
    expect(page.get_by_role("group", name="Which version was made from which")).to_be_visible()


def test_promotions_are_noted(site: Any) -> None:
    with site.client("operator") as operator:
        promoted: httpx.Response = operator.post("/operate/versions/v1/promote")
        assert promoted.status_code == 204
        assert operator.post("/operate/versions/v77/promote").status_code == 404
