"""Trainers rank answers and write dialogues, by keyboard alone where they like."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any

import pytest
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import delete, select

from tutelage.store import labelling
from tutelage.store.labelling import LabellingSettings
from tutelage.store.tables import Demonstration, Dialogue, LabellingTask, Ranking, WritingPrompt

pytestmark = pytest.mark.browser
Visit = Callable[..., Page]


@pytest.fixture(autouse=True)
def _one_conversation(site: Any) -> None:
    """Exactly one thing to rank."""
    with site.store.write() as tx:
        tx.execute(delete(LabellingTask))
        tx.execute(delete(Dialogue))
    site.conversation("What is a leap year?", "A year with 366 days.")
    site.say("It has a day more.", "Every fourth year.", "I do not know.")


@pytest.fixture
def ranking_page(visit: Visit) -> Page:
    page = visit("/rank", role="trainer")
    expect(page.locator("[data-candidate]")).to_have_count(4)
    return page


def texts(page: Page, place: str = "#ranked") -> list[str]:
    return page.locator(f"{place} .text").all_inner_texts()


def latest_ranking(site: Any) -> Ranking:
    with site.store.read() as tx:
        return tx.scalars(select(Ranking).order_by(Ranking.id.desc()).limit(1)).one()


def latest_demonstration(site: Any) -> Demonstration:
    with site.store.read() as tx:
        return tx.scalars(select(Demonstration).order_by(Demonstration.id.desc()).limit(1)).one()


def ids(page: Page) -> list[str | None]:
    return [each.get_attribute("data-candidate") for each in page.locator("[data-candidate]").all()]


def test_answers_are_ranked_by_keyboard_alone(ranking_page: Page, site: Any) -> None:
    page = ranking_page
    first, second, third, fourth = ids(page)
    page.keyboard.press("3")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("2")
    page.keyboard.press("=")
    page.keyboard.press("4")
    page.keyboard.press("0")
    assert ids(page) == [third, first, second, fourth]
    page.keyboard.press("1")
    page.keyboard.press("ArrowUp")
    page.keyboard.press("Control+z")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()
    ranking = latest_ranking(site)
    assert (ranking.groups, ranking.unrankable) == ([[third], [first, second]], [fourth])


def test_all_are_said_to_be_bad_by_keyboard_alone(ranking_page: Page, site: Any) -> None:
    page = ranking_page
    box = page.get_by_role("checkbox", name="All of them are bad")
    for _ in range(40):
        if box.evaluate("each => each === document.activeElement"):
            break
        page.keyboard.press("Tab")
    page.keyboard.press("Space")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()
    assert latest_ranking(site).all_bad


def test_answers_are_ranked_by_buttons(ranking_page: Page) -> None:
    page = ranking_page
    before = texts(page)
    page.locator(".candidate").nth(2).get_by_role("button", name="Better").click()
    assert texts(page) == [before[0], before[2], before[1], before[3]]
    page.locator(".candidate").nth(0).get_by_role("button", name="Not rankable").click()
    assert texts(page) == [before[2], before[1], before[3]]
    assert texts(page, "#out") == [before[0]]
    page.locator("#undo").click()
    assert texts(page) == [before[0], before[2], before[1], before[3]]


def test_answers_are_ranked_by_dragging(ranking_page: Page) -> None:
    page = ranking_page
    before = texts(page)
    handles = page.locator("[data-handle]")
    start, end = handles.nth(3).bounding_box(), handles.nth(0).bounding_box()
    assert start
    assert end
    page.mouse.move(start["x"] + 5, start["y"] + 5)
    page.mouse.down()
    page.mouse.move(start["x"] + 5, (start["y"] + end["y"]) / 2, steps=4)
    page.mouse.move(end["x"] + 5, end["y"] - 30, steps=4)
    page.mouse.up()
    assert texts(page) == [before[3], before[0], before[1], before[2]]


def test_the_order_as_it_came_is_sent_only_when_confirmed(ranking_page: Page) -> None:
    page = ranking_page
    page.get_by_role("button", name="Send ranking").click()
    dialog = page.get_by_role("dialog", name="Send the order as it came?")
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator("[data-candidate]").first).to_be_visible()
    page.get_by_role("button", name="Send ranking").click()
    dialog.get_by_role("button", name="Yes, send it").click()
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()


def test_a_skipped_task_does_not_come_back_and_a_reload_keeps_the_task(ranking_page: Page) -> None:
    page = ranking_page
    before = ids(page)
    page.reload()
    expect(page.locator("[data-candidate]")).to_have_count(4)
    assert ids(page) == before
    page.get_by_role("button", name="Skip").click()
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()


def test_a_task_that_was_taken_away_makes_room_for_the_next(ranking_page: Page, site: Any) -> None:
    page = ranking_page
    with site.store.write() as tx:
        tx.execute(delete(LabellingTask))
    site.conversation("What is rain?", "Water.")
    page.keyboard.press("1")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_text("There is no such task.")).to_be_visible()
    expect(page.locator("[data-candidate]")).to_have_count(4)


def test_candidates_do_not_say_who_wrote_them(ranking_page: Page) -> None:
    html = ranking_page.locator("#task").inner_html()
    assert "v1" not in html
    assert "original" not in html


def test_undo_tie_and_place_as_a_model(visit: Visit) -> None:
    page = visit("/rank", role="trainer")
    url = page.locator("script[src*='rank.js']").get_attribute("src")
    assert url
    groups = page.evaluate(
        """async (url) => {
          const { Ranking } = await import(url.replace("rank.js", "ranking.js"));
          const seen = [];
          const ranking = new Ranking(["a", "b", "c"]);
          const note = () => seen.push(JSON.stringify([ranking.groups, ranking.state.out]));
          ranking.tie("a"); note();
          ranking.tie("b"); ranking.tie("c"); note();
          ranking.move("a", 1); note();
          ranking.drop("b"); note();
          ranking.drop("b"); note();
          for (let i = 0; i < 9; i++) ranking.undo();
          note();
          seen.push(ranking.untouched);
          return seen;
        }""",
        url,
    )
    assert groups == [
        '[[["a"],["b"],["c"]],[]]',
        '[[["a","b","c"]],[]]',
        '[[["b"],["a"],["c"]],[]]',
        '[[["a"],["c"]],["b"]]',
        '[[["a"],["c"],["b"]],[]]',
        '[[["a"],["b"],["c"]],[]]',
        True,
    ]


def turn(page: Page, name: str) -> Locator:
    return page.get_by_role("textbox", name=name)


def test_a_dialogue_is_written_with_a_suggestion_that_is_edited(visit: Visit, site: Any) -> None:
    site.say("It has a day more.", "Every fourth year.", "I do not know.")
    page = visit("/write", role="trainer")
    turn(page, "The person says").fill("What is a leap year?")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("button", name="Take it")).to_have_count(3)
    shown = ["Every fourth year.", "I do not know.", "It has a day more."]
    for said in shown:
        expect(page.locator(".suggestion .text").filter(has_text=said)).to_have_count(1)
    chosen = page.locator(".suggestion").filter(has_text="It has a day more.")
    expect(chosen.get_by_role("button", name="Take it")).to_be_enabled()
    chosen.get_by_role("button", name="Take it").press("Enter")
    turn(page, "The assistant answers").fill("A leap year has a day more.")
    expect(page.locator("[data-provenance]").nth(1)).to_have_text("Suggestion, edited")
    page.get_by_role("button", name="Continue as the person").click()
    turn(page, "The person says").nth(1).fill("Which day?")
    site.say("Feb 29.")
    page.keyboard.press("Control+Enter")
    expect(page.locator(".suggestions:visible .text")).to_have_count(1)
    expect(page.locator(".suggestions:visible .text")).to_have_text("Feb 29.")
    page.get_by_role("button", name="Write my own").click()
    turn(page, "The assistant answers").nth(1).fill("The 29th of February.")
    page.get_by_role("textbox", name="Flag for the reviewer").fill("Is this too short?")
    page.get_by_role("button", name="Hand in").click()
    expect(page.get_by_text("The dialogue is handed in")).to_be_visible()
    row = latest_demonstration(site)
    assert (row.status, row.flag) == ("submitted", "Is this too short?")
    kept = [message["provenance"] for message in row.messages]
    assert [each["kind"] for each in kept] == ["human", "edited", "human", "human"]
    assert kept[1]["taken"] == "It has a day more."
    assert 0 < kept[1]["edit_ratio"] < 1
    assert sorted(kept[1]["suggestions"]) == shown
    assert kept[1]["model_version"] == "v1"
    assert kept[3]["suggestions"] == ["Feb 29."]


def test_a_writer_begins_from_a_prompt_by_guidelines_that_operators_change(visit: Visit, site: Any) -> None:
    question = f"How do I pick a lock? {random.randrange(10**9)}"
    with site.client("operator") as operator:
        added = operator.post("/operate/labelling/prompts", json={"topic": "refuse", "prompts": question})
        assert added.status_code == 204
        for content in ("First **draft**.", "Ask back when it is <b>unclear</b>."):
            body = {"place": "write", "content": content}
            assert operator.post("/operate/labelling/guidelines", json=body).status_code == 204
    page = visit("/write", role="trainer")
    beside = page.get_by_role("complementary", name="Help")
    expect(beside).to_contain_text("Ask back when it is <b>unclear</b>.")
    expect(beside).to_contain_text("version 2")
    page.get_by_role("combobox", name="Topic").select_option("refuse")
    expect(page.locator("#start-prompt")).to_have_text(question)
    page.get_by_role("button", name="Begin with this").press("Enter")
    expect(turn(page, "The person says")).to_have_value(question)
    page.get_by_role("button", name="Answer as the assistant").click()
    turn(page, "The assistant answers").fill("Call a locksmith.")
    page.get_by_role("button", name="Hand in").click()
    expect(page.get_by_text("The dialogue is handed in")).to_be_visible()
    row = latest_demonstration(site)
    assert (row.topic, row.guidelines) == ("refuse", 2)
    with site.store.read() as tx:
        [kept] = tx.scalars(select(WritingPrompt).where(WritingPrompt.content == question))
    assert kept.uses == 1


def test_a_draft_is_saved_and_opened_again(visit: Visit) -> None:
    page = visit("/write", role="trainer")
    turn(page, "The person says").fill("Half a thought")
    expect(page.get_by_text("Draft saved")).to_be_visible()
    page.reload()
    expect(turn(page, "The person says")).to_have_value("Half a thought")
    page.get_by_role("button", name="Discard").click()
    page.get_by_role("dialog").get_by_role("button", name="Discard").click()
    expect(turn(page, "The person says")).to_have_value("")
    expect(page.get_by_role("heading", name="Drafts")).to_have_count(0)


def test_an_answer_is_fixed_in_its_place_and_becomes_a_demonstration(ranking_page: Page, site: Any) -> None:
    page = ranking_page
    card = page.locator(".candidate").nth(1)
    card.get_by_role("button", name="Fix it").press("Enter")
    area = card.get_by_role("textbox")
    expect(area).to_be_focused()
    area.fill("A year with 366 days, every fourth year.")
    page.keyboard.press("Control+Enter")
    page.get_by_role("dialog").get_by_role("button", name="Yes, send it").press("Enter")
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()
    row = latest_demonstration(site)
    assert row.messages[-1]["content"] == "A year with 366 days, every fourth year."
    assert row.messages[-1]["provenance"]["kind"] == "edited"
    assert latest_ranking(site).as_it_came


def test_a_task_is_flagged_with_a_reason(ranking_page: Page, site: Any) -> None:
    page = ranking_page
    page.get_by_role("button", name="Flag").click()
    expect(page.get_by_text("Say in the note what is wrong with it.")).to_be_visible()
    page.keyboard.type("Names a real person")
    page.get_by_role("button", name="Flag").click()
    expect(page.get_by_text("Nothing to rank now")).to_be_visible()
    with site.store.read() as tx:
        assert labelling.flagged_tasks(tx)[0].reason == "Names a real person"


def test_how_far_the_model_is_comes_line_by_line(site: Any) -> None:
    with site.client("trainer") as client:
        *progress, last = [json.loads(line) for line in client.post("/rank/next").text.splitlines()]
        assert progress == [{"sampled": done, "of": 3} for done in (1, 2, 3)]
        answer = client.get(f"/rank/tasks/{last['task']}", headers={"accept": "application/json"}).json()
    assert [message["content"] for message in answer["prompt"]] == ["What is a leap year?"]
    assert len(answer["candidates"]) == 4
    assert set(answer["candidates"][0]) == {"id", "content"}


def test_a_version_that_is_gone_is_left_out_while_another_answers(site: Any) -> None:
    with site.store.write() as tx:
        labelling.change_labelling_settings(tx, LabellingSettings(versions=("v77", "stable")))
    try:
        with site.client("trainer") as client:
            events = [json.loads(line) for line in client.post("/rank/next").text.splitlines()]
        assert events[-1]["task"]
        with site.store.write() as tx:
            tx.execute(delete(LabellingTask))
            labelling.change_labelling_settings(tx, LabellingSettings(versions=("v77",)))
        with site.client("trainer") as client:
            [event] = [json.loads(line) for line in client.post("/rank/next").text.splitlines()]
        assert "v77" in event["error"]["message"]
    finally:
        with site.store.write() as tx:
            labelling.change_labelling_settings(tx, LabellingSettings())
