"""Operators look at what trainers did: dialogues, agreement, settings."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import delete, select

from tutelage.store import accounts, labelling
from tutelage.store.tables import Demonstration, Dialogue, LabellingTask, Ranking

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


@pytest.fixture
def disputed(site: Any) -> str:
    """A task that two trainers have ranked in opposite orders."""
    with site.store.write() as tx:
        tx.execute(delete(LabellingTask))
        tx.execute(delete(Dialogue))
    site.conversation("What is a leap year?", "A year with 366 days.")
    task_id = ""
    for number in range(2):
        with site.store.write() as tx:
            name = f"annotator-{number}-{random.randrange(10**9)}"
            user = accounts.create_user(tx, name=name, password_hash="", role="trainer")
            rng = random.Random(0)
            task = labelling.next_ranking_task(tx, annotator_id=user.id, k=3, rng=rng, overlap=2)
            assert task
            task = labelling.set_candidates(tx, task.id, user.id, [{"content": "Long."}, {"content": "Odd."}])
            order = sorted(task.candidates, key=lambda each: each.content, reverse=bool(number))
            groups = [[each.id] for each in order]
            labelling.submit_ranking(tx, task_id=task.id, annotator_id=user.id, groups=groups)
            task_id = task.id
    return task_id


def test_a_dispute_is_settled_by_keyboard_and_becomes_gold(visit: Visit, site: Any, disputed: str) -> None:
    page = visit("/operate/agreement", role="operator")
    expect(page.get_by_text("0 %").first).to_be_visible()
    page.get_by_role("link", name="Settle it").focus()
    page.keyboard.press("Enter")
    for number, rank in enumerate(["2", "1", ""]):
        page.get_by_label("Rank", exact=True).nth(number).fill(rank)
    page.get_by_label("Give this task to everybody once").press("Space")
    page.get_by_role("button", name="Settle it").press("Enter")
    page.wait_for_url("**/operate/agreement")
    expect(page.get_by_role("heading", name="Where they disagree most")).to_have_count(0)
    with site.store.read() as tx:
        row = tx.scalars(select(Ranking).where(Ranking.task_id == disputed, Ranking.adjudication)).one()
        task = tx.get_one(LabellingTask, disputed)
        shown = [each.id for each in labelling.labelled_task(tx, disputed).candidates]
    assert row.groups == [[shown[1]], [shown[0]]] == task.gold
    assert row.unrankable == [shown[2]]


def test_ranks_that_are_none_are_refused(site: Any, disputed: str) -> None:
    with site.client("operator") as operator:
        for ranks in (["1"], ["1", "2", "x"], ["", "", ""]):
            answer = operator.post(f"/operate/tasks/{disputed}", json={"ranks": ranks})
            assert answer.status_code == (204 if ranks == ["", "", ""] else 400)


def test_a_task_whose_owner_withdrew_consent_cannot_be_read(site: Any, disputed: str) -> None:
    with site.store.write() as tx:
        task = tx.get_one(LabellingTask, disputed)
        tx.get_one(Dialogue, task.dialogue_id).consent = False
    with site.client("operator") as operator:
        assert operator.get(f"/operate/tasks/{disputed}").status_code == 404


def test_a_dialogue_is_changed_and_accepted_and_the_authors_words_are_kept(visit: Visit, site: Any) -> None:
    words = f"Becose of that {random.randrange(10**9)}."
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": words}]
    with site.client("trainer") as trainer:
        body = {"messages": turns, "topic": "ambiguous", "flag": "spelling?"}
        assert trainer.post("/write/submit", json=body).status_code == 204
    page = visit("/operate/demonstrations", role="operator")
    card = page.locator("article").filter(has_text=words)
    expect(card).to_contain_text("Ambiguous requests")
    expect(card).to_contain_text("spelling?")
    card.get_by_text("Change it yourself").press("Enter")
    card.get_by_role("textbox", name="Assistant").fill("Because of that.")
    card.get_by_role("button", name="Accept with these changes").press("Enter")
    expect(page.locator("article").filter(has_text=words)).to_have_count(0)
    with site.store.read() as tx:
        row = tx.scalars(select(Demonstration).order_by(Demonstration.updated.desc()).limit(1)).one()
    assert row.status == "accepted"
    assert row.messages[-1]["content"] == "Because of that."
    assert row.messages[-1]["provenance"]["reviewed"]
    assert row.handed_in
    assert row.handed_in[-1]["content"] == words


def test_settings_are_saved_and_wrong_ones_are_explained(visit: Visit, site: Any) -> None:
    page = visit("/operate/labelling", role="operator")
    try:
        page.get_by_label("Answers to rank at a time").fill("6")
        page.get_by_label("Versions that answer").fill("stable, v2")
        page.get_by_label("Ambiguous requests").fill("3")
        page.get_by_role("button", name="Save", exact=True).press("Enter")
        expect(page.get_by_text("Saved.")).to_be_visible()
        with site.store.read() as tx:
            settings = labelling.labelling_settings(tx)
        assert (settings.candidates, settings.versions) == (6, ("stable", "v2"))
        assert settings.topics["ambiguous"] == 3
        page.get_by_label("Versions that answer").fill(",")
        page.get_by_role("button", name="Save", exact=True).press("Enter")
        expect(page.get_by_text("Answers come from one version at least.")).to_be_visible()
    finally:
        with site.store.write() as tx:
            labelling.change_labelling_settings(tx, labelling.LabellingSettings())
