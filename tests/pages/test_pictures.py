"""The pictures of the documentation: `make pictures` draws them anew, from pages with made-up contents."""

from __future__ import annotations

import json
import math
import os
import random
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page, expect
from sqlalchemy import delete
from sqlalchemy.orm import Session

from tutelage import dialogue
from tutelage.store import accounts, dialogues, feedback, imports, pairs, runs, workers
from tutelage.store.ids import now
from tutelage.store.tables import Dialogue, Message

FOLDER = os.environ.get("TUTELAGE_PICTURES", "")
LARGEST = 150_000
Visit = Callable[..., Page]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not FOLDER, reason="TUTELAGE_PICTURES names the folder for pictures: make pictures"),
]

CSV = """Use the `csv` module of the standard library:

```python
import csv

with open("people.csv", newline="") as file:
    for row in csv.DictReader(file):
        print(row["name"], row["city"])
```

| class | a row is | good for |
|---|---|---|
| `csv.reader` | a list | files without a header |
| `csv.DictReader` | a dict | files with one |
"""
RAINBOW = (
    "A rainbow forms when sunlight meets drops of rain.\n\n"
    "1. Light **bends** as it enters a drop.\n2. It is **reflected** at the back.\n"
    "3. It bends again on its way out, and its colours part.",
    "Rain is full of tiny round mirrors. Sunlight goes in, bounces once, and comes out split into colours: "
    "red at about 42° from the light's way, violet at about 40°. So red stands on the outside of the bow.",
)
TITLES = (
    "Explain how a rainbow forms",
    "A birthday dinner",
    "Leap years",
    "Words for snow",
    "A poem on rivers",
)
CHINESE = (
    "彩虹是怎麼形成的？",
    "陽光進入雨滴時會**折射**，在雨滴背面**反射**，離開時再次折射，各色光因此分開。",
)


class Studio:
    """Signs people in, gives them things to look at, and takes pictures."""

    def __init__(self, visit: Visit, site: Any) -> None:
        self.visit, self.site = visit, site

    def person(self, role: str, locale: str = "en") -> tuple[str, str]:
        """A new person's id and session; people other than guests are called what they are."""
        with self.site.store.write() as tx:
            user = accounts.create_guest(tx, locale=locale, consent=True)
            if role != "guest":
                user.name, user.name_key = role, f"{role}-{user.id}"
                accounts.set_role(tx, user.id, role)
            return user.id, accounts.open_session(tx, user.id, days=1)

    def chat(self, owner: str, title: str, *texts: str, days: float = 0.0, beside: str = "") -> str:
        """A dialogue of so many days ago; `beside` stands beside its last answer."""
        with self.site.store.write() as tx:
            row, last = dialogues.create_dialogue(tx, owner, title=title), None
            for index, text in enumerate(texts):
                role, kind = ("assistant", "model") if index % 2 else ("user", "human")
                last = _say(tx, row.id, None if last is None else last.id, role, text, author_kind=kind)
            if beside and last is not None:
                second = _say(tx, row.id, last.parent_id, "assistant", beside, author_kind="model")
                pairs.put_side_by_side(last, second)
            row.updated = now() - timedelta(days=days)
            return row.id

    def shoot(
        self,
        name: str,
        path: str,
        session: str,
        *,
        wait: str = "main",
        act: Callable[[Page], None] = lambda page: None,
        **options: Any,
    ) -> None:
        """A picture of a page, once something is there and a person has acted on it."""
        page = self.visit("/terms", **{"width": 1280, "height": 800, **options})
        page.context.clear_cookies()
        page.context.add_cookies([{"name": "tutelage", "value": session, "url": self.site.url}])
        page.goto(path)
        expect(page.locator(wait).first).to_be_visible()
        act(page)
        page.wait_for_load_state("networkidle")
        page.evaluate("document.activeElement.blur()")
        file = Path(FOLDER) / f"{name}.png"
        page.screenshot(path=file)
        assert file.stat().st_size <= LARGEST


def _say(tx: Session, chat: str, parent: str | None, role: str, text: str, *, author_kind: str) -> Message:
    version = "v2" if author_kind == "model" else None
    return dialogues.add_message(
        tx,
        chat,
        parent_id=parent,
        role=role,  # type: ignore[arg-type]
        content=text,
        author_kind=author_kind,  # type: ignore[arg-type]
        model_version=version,
    )


@pytest.fixture
def studio(visit: Visit, site: Any) -> Studio:
    site.registry.promote("v2")
    return Studio(visit, site)


def test_the_chat(studio: Studio) -> None:
    owner, session = studio.person("guest")
    for number, title in enumerate(TITLES):
        studio.chat(owner, title, title, RAINBOW[0], days=number * 0.8)
    chat = f"/c/{studio.chat(owner, 'How do I read a CSV file in Python?', 'How do I read a CSV file in Python?', CSV)}"
    studio.shoot("chat-light", chat, session, wait=".prose table")
    studio.shoot("chat-dark", chat, session, wait=".prose table", color_scheme="dark")
    studio.shoot("chat-phone", chat, session, wait=".prose table", width=360, height=740)
    two = studio.chat(owner, TITLES[0], TITLES[0], RAINBOW[0], beside=RAINBOW[1])
    studio.shoot("side-by-side", f"/c/{two}", session, wait=".pair")
    studio.shoot("account", "/account", session, wait="form")


def test_the_chat_in_chinese(studio: Studio) -> None:
    owner, session = studio.person("guest", locale="zh-Hant")
    chat = studio.chat(owner, CHINESE[0], *CHINESE)
    studio.shoot("chat-zh-hant", f"/c/{chat}", session, wait=".prose", locale="zh-TW")


def test_the_rooms_of_trainers(studio: Studio) -> None:
    with studio.site.store.write() as tx:
        tx.execute(delete(Dialogue))
    owner, _ = studio.person("guest")
    studio.chat(owner, "What is a leap year?", "What is a leap year?", "A year with 366 days.")
    studio.site.say(
        "A year with one day more, so that the calendar keeps step with the sun.",
        "Every fourth year, except for most full centuries: 2000 was one, 1900 was not.",
        "It is a year in which people leap.",
    )
    _, session = studio.person("trainer")
    studio.shoot("rank", "/rank", session, wait="[data-candidate]")
    studio.shoot("write", "/write", session, wait="textarea", act=_ask_as_a_person)


def _ask_as_a_person(page: Page) -> None:
    """A first question in a dialogue that is being written, and what the model would say."""
    page.get_by_role("combobox").first.select_option(label="Anything")
    page.locator("textarea").first.fill("How do I know whether a year is a leap year?")
    page.locator("textarea").first.press("Control+Enter")
    expect(page.locator(".suggestion .text").first).to_be_visible()


def test_the_rooms_of_operators(studio: Studio) -> None:
    _, session = studio.person("operator")
    _rate(studio)
    _train(studio)
    studio.shoot("feedback", "/operate/feedback", session)
    studio.shoot("training", "/operate/training", session, wait="article svg")
    studio.shoot("versions", "/operate", session)


def _rate(studio: Studio) -> None:
    """Thumbs over twelve weeks; the second version is liked better."""
    chance = random.Random(1)
    owner, _ = studio.person("guest")
    for number in range(72):
        version = "v1" if number < 40 else "v2"
        chat = studio.chat(
            owner, TITLES[number % 5], TITLES[number % 5], RAINBOW[number % 2], days=80 - number
        )
        with studio.site.store.write() as tx:
            answer = dialogues.thread(tx, chat)[-1][0]
            answer.model_version = version
            up = chance.random() < (0.55 if version == "v1" else 0.75)
            reasons = () if up else chance.sample(("untrue", "unhelpful", "too_long"), 1)
            row = feedback.rate(
                tx, message_id=answer.id, rater_id=owner, verdict="up" if up else "down", reasons=reasons
            )
            row.updated = now() - timedelta(days=80 - number)


def _train(studio: Studio) -> None:
    """A round in the middle of PPO, from a hundred comparisons and more."""
    with studio.site.store.write() as tx:
        for number in range(120):
            question = (dialogue.Message("user", f"{TITLES[number % 5]} ({number})"),)
            imports.import_comparison(tx, dialogue.Comparison.from_ranking(question, RAINBOW, [[0], [1]]))
    folder = Path(studio.site.registry.folder).parent / "runs" / "improve-0002"
    falling = [{"loss": 3 * math.exp(-n / 30) + 1.2} for n in range(120)]
    telling = [{"loss": 0.69 - n / 400, "accuracy": 0.5 + 0.2 * (1 - math.exp(-n / 20))} for n in range(60)]
    rising = [
        {
            "reward": 1 - math.exp(-n / 20),
            "kl": n / 12,
            "length": 60 + 10 * math.sin(n / 6),
            "entropy": 2 - n / 80,
        }
        for n in range(50)
    ]
    for stage, rows in (("sft", falling), ("reward", telling), ("ppo", rising)):
        (folder / stage).mkdir(parents=True)
        lines = [json.dumps({"step": n, "seconds": 9.0 * n, **row}) for n, row in enumerate(rows)]
        (folder / stage / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "round.json").write_text(json.dumps({"snapshot": "4f2a91", "parent": "v1"}))
    with studio.site.store.write() as tx:
        runs.request_run(tx, kind="improve", config={"model": "tiny"})
        runs.take_request(tx, worker="worker-1")
        workers.show(tx, "worker-1")
        run = runs.create_run(tx, kind="improve", config={"model": "tiny"}, name=folder.name)
        metrics = {"stage": "ppo", "done": 50, "total": 200, "metrics": {}}
        runs.update_run(tx, run.id, status="running", metrics=metrics)
