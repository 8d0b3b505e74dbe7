"""A contest for feedback from its planning to its winners, over HTTP and in a browser."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from playwright.sync_api import Page, expect

from tutelage.store import audit, campaigns
from tutelage.store.campaigns import entries
from tutelage.store.ids import now
from tutelage.web.entry_files import cell

Visit = Callable[..., Page]
FORM = {
    "title": "Feedback contest",
    "rules": "Be **kind**.\n\n<script>alert(1)</script>",
    "prize": "A postcard",
    "weight": "entry",
    "opens": "2020-01-01T00:00",
    "closes": "2098-12-31T23:59",
}


@pytest.fixture
def operator(site: Any) -> Iterator[httpx.Client]:
    """An operator; what campaigns they leave open end with the test."""
    with site.client("operator") as client:
        client.timeout = httpx.Timeout(60)
        yield client
    with site.store.write() as tx:
        for row in campaigns.list_campaigns(tx):
            if campaigns.state(row) == "open":
                campaigns.move_end(tx, row.id, now())


def plan(operator: httpx.Client, **changes: Any) -> str:
    made = operator.post("/operate/campaigns", json=FORM | changes)
    assert made.status_code == 201, made.text
    return str(made.json()["id"])


def take_part(site: Any, campaign: str, words: str, *, role: str = "user", **rating: Any) -> httpx.Client:
    """Somebody who does not let models learn, has chatted, rated and entered; their client."""
    user = httpx.Client(
        base_url=site.url, cookies={"tutelage": site.session(role, consent=False)}, timeout=60
    )
    started = user.post("/api/dialogues", json={"text": words}).json()
    assert "event: done" in user.get(f"/api/answers/{started['answer_id']}/events").text
    path = f"/api/messages/{started['answer_id']}"
    assert user.put(f"{path}/rating", json={"verdict": "down"} | rating).status_code == 200
    assert user.put(f"{path}/entries/{campaign}").status_code == 200
    user.headers["x-answer"] = started["answer_id"]
    return user


def test_a_contest_goes_from_its_plan_to_its_winners(site: Any, operator: httpx.Client) -> None:
    contest = plan(operator)
    with site.client(None) as anybody:
        told = anybody.get("/api/campaign").json()["campaign"]
        assert (told["id"], told["path"]) == (contest, f"/campaigns/{contest}")
        page = anybody.get(told["path"])
        assert (page.status_code, len(anybody.cookies)) == (200, 0)
        assert "<strong>kind</strong>" in page.text
        assert "<script>alert" not in page.text
        assert "2098-12-31 23:59 UTC" in page.text
        assert "who enters more is more likely to win" in page.text
    people = [take_part(site, contest, f"words of {number}", note=f"note {number}") for number in range(3)]
    shown = operator.get(f"/operate/campaigns/{contest}").text
    assert shown.count("data-rating=") == 3
    assert "note 1" not in shown
    assert operator.post(f"/operate/campaigns/{contest}/draw", json={"count": 1}).status_code == 409
    assert operator.post(f"/operate/campaigns/{contest}/close").status_code == 204
    with site.store.read() as tx:
        seed = campaigns.get_campaign(tx, contest).seed
    assert seed not in operator.get(f"/operate/campaigns/{contest}").text
    assert operator.post(f"/operate/campaigns/{contest}/draw", json={"count": 2}).status_code == 204
    assert seed in operator.get(f"/operate/campaigns/{contest}").text
    pages = [person.get(f"/campaigns/{contest}").text for person in people]
    assert sum("You have won." in page for page in pages) == 2
    assert sum("You have won" in person.get("/account").text for person in people) == 2
    with site.store.read() as tx:
        log = {entry.action: entry.detail for entry, _ in audit.list_entries(tx) if entry.subject == contest}
    assert log["draw_winners"] == {"asked": 2, "drawn": 2, "entries": 3, "people": 3}
    assert {"plan_campaign", "close_campaign"} < set(log)
    answer = people[0].headers["x-answer"]
    assert people[0].put(f"/api/messages/{answer}/entries/{contest}").status_code == 409
    for person in people:
        person.close()


def test_files_of_entries_hold_what_was_shared_and_no_formula(site: Any, operator: httpx.Client) -> None:
    contest = plan(operator, title="=Files/..")
    nasty = '=HYPERLINK("http://evil.example","x")'
    user = take_part(site, contest, 'a,b\n"c" 中文', note=nasty, ideal="  @SUM(1)", reasons=["untrue"])
    with contextlib.closing(user):
        answer = user.headers["x-answer"]
        path = f"/operate/campaigns/{contest}/entries"
        for client in (user, site.client("trainer"), site.client(None)):
            assert client.get(path, headers={"accept": "*/*"}).status_code in (401, 403)
        answered = operator.get(path)
        assert answered.headers["content-type"] == "text/csv; charset=utf-8"
        assert "attachment" in answered.headers["content-disposition"]
        text = answered.content.decode("utf-8-sig")
        assert answered.content.startswith(b"\xef\xbb\xbf")
        [row] = csv.DictReader(io.StringIO(text))
        assert row["note"] == "'" + nasty
        assert row["ideal"] == "'  @SUM(1)"
        assert row["conversation"] == 'User: a,b\n"c" 中文\n\nAssistant: Hello there.'
        [whole] = [json.loads(line) for line in operator.get(path, params={"format": "jsonl"}).iter_lines()]
        assert (whole["note"], whole["entry"], whole["ticket"]) == (nasty, row["entry"], row["entry"])
        assert [turn["role"] for turn in whole["messages"]] == ["user", "assistant"]
        assert operator.get(path, params={"format": "xlsx"}).status_code == 400
        mine = user.get("/api/account/export").json()["campaign_entries"]
        assert [entry["message_id"] for entry in mine] == [answer]
        assert user.delete(f"/api/messages/{answer}/entries/{contest}").status_code == 204
        assert len(operator.get(path).text.splitlines()) == 1
    with site.store.read() as tx:
        taken = [
            entry.detail for entry, _ in audit.list_entries(tx) if entry.subject == contest and entry.detail
        ]
    assert taken == [{"format": "csv"}, {"format": "jsonl"}, {"format": "csv"}]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "\r", "\n=", " =", "＝", "－"])
def test_a_cell_never_begins_like_a_formula(start: str) -> None:
    assert cell(f"{start}1+1") == f"'{start}1+1"
    assert cell("1 = 1") == "1 = 1"
    assert cell("") == ""


@pytest.mark.parametrize(
    "wrong",
    [
        {"title": ""},
        {"title": "x" * 200},
        {"rules": " "},
        {"closes": "2020-01-01T00:00"},
        {"closes": "soon"},
        {"closes": "9999-12-31T23:59:59+14:00"},
        {"weight": "luck"},
        {"opens": None},
    ],
)
def test_what_cannot_be_a_campaign_is_refused(
    site: Any, operator: httpx.Client, wrong: dict[str, Any]
) -> None:
    answer = operator.post("/operate/campaigns", json=FORM | wrong, headers={"accept": "*/*"})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in wrong
    with site.store.read() as tx:
        assert campaigns.open_campaign(tx) is None


def test_a_planned_campaign_is_changed_moved_and_deleted(site: Any, operator: httpx.Client) -> None:
    later = FORM | {"opens": "2097-01-01T00:00", "closes": "2097-02-01T00:00"}
    contest = plan(operator, **later)
    path = f"/operate/campaigns/{contest}"
    assert operator.put(path, json=later | {"title": "Renamed"}).status_code == 204
    assert "Renamed" in operator.get("/operate/campaigns").text
    assert operator.put(f"{path}/end", json={"closes": "2097-03-01T00:00"}).status_code == 409
    assert operator.post("/operate/campaigns", json=later).status_code == 409
    assert operator.delete(path).status_code == 204
    assert operator.get(path).status_code == 404
    running = plan(operator)
    moved = {"closes": "2090-01-01T00:00"}
    assert operator.put(f"/operate/campaigns/{running}", json=FORM).status_code == 409
    assert operator.put(f"/operate/campaigns/{running}/end", json=moved).status_code == 204
    assert "2090-01-01 00:00 UTC" in operator.get(f"/campaigns/{running}").text
    for missing in (uuid.uuid4().hex, "x"):
        assert operator.get(f"/campaigns/{missing}").status_code == 404
        assert operator.post(f"/operate/campaigns/{missing}/close").status_code == 404


@pytest.mark.browser
def test_feedback_is_entered_in_the_dialog_changed_and_taken_back(
    visit: Visit, site: Any, operator: httpx.Client
) -> None:
    contest = plan(operator)
    page = visit(role="user")
    expect(page.get_by_role("link", name="Feedback contest")).to_be_visible()
    page.get_by_role("textbox", name="Your message").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Bad answer").click()
    box = page.get_by_role("checkbox", name="Enter this feedback into “Feedback contest”")
    expect(box).not_to_be_checked()
    box.check()
    page.get_by_label("In your own words").fill("It could be warmer.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your feedback is saved")).to_be_visible()
    noted(site, contest, ["It could be warmer."])

    page.reload()
    page.get_by_role("button", name="Good answer").click()
    expect(box).to_be_checked()
    page.get_by_label("In your own words").fill("Fine after all.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your feedback is saved")).to_be_visible()
    noted(site, contest, ["Fine after all."])
    page.get_by_role("button", name="Good answer").click()
    box.uncheck()
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("Your feedback is saved")).to_be_visible()
    noted(site, contest, [])

    page.get_by_role("button", name="Good answer").click()
    box.check()
    operator.post(f"/operate/campaigns/{contest}/close")
    page.get_by_label("In your own words").fill("Too late, but kept.")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_text("does not take entries now")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Good answer").click()
    expect(page.get_by_label("In your own words")).to_have_value("Too late, but kept.")
    expect(box).to_have_count(0)


@pytest.mark.browser
def test_an_operator_plans_reads_and_draws_and_a_winner_sees_it(
    visit: Visit, site: Any, operator: httpx.Client
) -> None:
    page = visit("/operate/campaigns", role="operator")
    page.get_by_role("textbox", name="Title").fill("Winter contest")
    page.get_by_label("Rules (Markdown)").fill("Say what you think.")
    page.get_by_label("Closes (UTC)").fill("2098-01-01T00:00")
    page.get_by_role("button", name="Plan it").click()
    page.get_by_role("link", name="Winter contest").click()
    contest = page.url.rpartition("/")[2]
    with contextlib.closing(take_part(site, contest, "A word from the winner", note="A fine note")) as winner:
        page.reload()
        page.get_by_role("button", name="Read (entered)").click()
        expect(page.get_by_text("A fine note")).to_be_visible()
        page.get_by_role("button", name="Close it now").click()
        page.get_by_role("dialog").get_by_role("button", name="Close", exact=True).click()
        page.get_by_role("button", name="Draw").click()
        expect(page.get_by_role("table")).to_contain_text("user-")
        assert "You have won." in winner.get(f"/campaigns/{contest}").text


@pytest.mark.browser
def test_a_guest_is_told_what_it_takes(visit: Visit, operator: httpx.Client) -> None:
    plan(operator)
    page = visit()
    page.get_by_role("textbox", name="Your message").fill("Hello")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="Bad answer").click()
    expect(page.get_by_role("dialog")).to_contain_text("choose a name under your account")
    expect(page.locator("#feedback-enter")).to_have_count(0)


def noted(site: Any, contest: str, notes: list[str]) -> None:
    """The notes of all entries, once they are these."""
    deadline = time.monotonic() + 30
    while True:
        with site.store.read() as tx:
            found = [row.rating.note for row in entries.list_entries(tx, contest, limit=9)]
        if found == notes or time.monotonic() > deadline:
            break
        time.sleep(0.05)
    assert found == notes


def test_far_dates_do_no_harm(operator: httpx.Client) -> None:
    plan(operator, closes="9999-12-31T23:59")
    assert operator.get("/operate/campaigns").status_code == 200
