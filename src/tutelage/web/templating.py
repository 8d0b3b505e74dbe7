"""Templates become responses here: language, asset addresses, the side bar and the security headers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from functools import cached_property
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, Response

from tutelage.server.errors import translated
from tutelage.server.middleware import SECURITY_HEADERS
from tutelage.store import Store, dialogues
from tutelage.store.tables import Dialogue, User
from tutelage.web import catalogue, categories, icons, metrics
from tutelage.web.assets import Assets
from tutelage.web.catalogue import Translate

HERE = Path(__file__).parent
SIDEBAR_LIMIT = 100
THEMES = ("light", "dark")
# On top of what the server sets for every response: scripts may not turn text into HTML behind `http.js`'s back.
TRUSTED_TYPES = "; require-trusted-types-for 'script'; trusted-types tutelage"
HEADERS = {"content-security-policy": SECURITY_HEADERS["content-security-policy"] + TRUSTED_TYPES}


class Pages:
    """Renders templates for one server."""

    def __init__(self, store: Store) -> None:
        self.assets = Assets(HERE / "static")
        self._store = store
        self._environment = Environment(
            loader=PackageLoader("tutelage.web"),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        self._environment.globals.update(asset=self.assets.url, icon=icons.icon)

    def page(self, request: Request, name: str, *, user: User, place: str = "", **context: Any) -> Response:
        """A page inside the frame, with the user's chats at its side."""
        closed = request.cookies.get("sidebar") == "closed"
        context = {"dialogue_id": None, "sidebar_closed": closed, **self.side_bar(request, user), **context}
        return self.bare(request, name, user=user, place=place, **context)

    def side_bar(self, request: Request, user: User, *, before: str | None = None) -> dict[str, Any]:
        """The user's chats by day, newest first, and where the next part of the list begins."""
        with self._store.read() as tx:
            rows = dialogues.list_dialogues(tx, user.id, limit=SIDEBAR_LIMIT + 1, before=before)
        more = rows[SIDEBAR_LIMIT - 1].id if len(rows) > SIDEBAR_LIMIT else None
        here, t = zone(request), self.translator(request, user)
        groups = by_day(rows[:SIDEBAR_LIMIT], today=datetime.now(here).date(), zone=here, t=t)
        return {"dialogue_groups": groups, "more_dialogues": more}

    def bare(
        self, request: Request, name: str, *, user: User | None = None, status_code: int = 200, **context: Any
    ) -> Response:
        """A page without the frame, or a fragment of a page."""
        locale = self.locale(request, user)
        html = self._environment.get_template(name).render(
            {"sidebar_closed": False, **context},
            user=user,
            locale=locale,
            theme=theme(request),
            t=catalogue.translator(locale),
            when=lambda moment: when(moment, zone(request)),
            told=lambda words: translated(words, catalogue.translator(locale)),
            category=lambda name: categories.named(name, catalogue.translator(locale)),
            metric=lambda name: metrics.named(name, catalogue.translator(locale)),
            utc=lambda moment: f"{when(moment, UTC)} UTC",
            script_texts=self._script_texts(locale),
        )
        return HTMLResponse(html, status_code=status_code, headers=HEADERS)

    def locale(self, request: HTTPConnection, user: User | None) -> str:
        """The reader's language."""
        return catalogue.choose(user.locale if user else None, request.headers.get("accept-language", ""))

    def translator(self, request: HTTPConnection, user: User | None) -> Translate:
        """The reader's `t`."""
        return catalogue.translator(self.locale(request, user))

    def translator_of(self, asker: HTTPConnection) -> Translate:
        """The `t` of whoever asks, where that is known by now; else of their browser."""
        return self.translator(asker, reader(asker))

    def _script_texts(self, locale: str) -> dict[str, str]:
        texts = catalogue.texts(locale)
        return {text: texts[text] for text in self._texts_of_scripts if text in texts}

    @cached_property
    def _texts_of_scripts(self) -> list[str]:
        return sorted(texts_of_scripts(self.assets))


def reader(asker: HTTPConnection) -> User | None:
    """Who asks, if somebody has looked."""
    found: User | None = getattr(asker.state, "reader", None)
    return found


def texts_of_scripts(assets: Assets) -> set[str]:
    """Every text that a module passes to its `t`."""
    found: set[str] = set()
    for name, content in assets.files.items():
        if name.endswith(".js"):
            literals = re.findall(r'\bt\(("(?:[^"\\]|\\.)*")', content.decode())
            found.update(json.loads(literal) for literal in literals)
    return found


def theme(request: Request) -> str:
    """Light or dark, as somebody wants it in this browser; empty follows the system."""
    wanted = request.cookies.get("theme", "")
    return wanted if wanted in THEMES else ""


def zone(request: Request) -> ZoneInfo:
    """The reader's time zone, as the browser told us; UTC before it did."""
    try:
        return ZoneInfo(request.cookies.get("timezone", "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        return ZoneInfo("UTC")


def when(moment: datetime, zone: tzinfo) -> str:
    """A point in time for people: 2026-03-01 14:05, in their zone."""
    return f"{moment.astimezone(zone):%Y-%m-%d %H:%M}"


def by_day(
    rows: Sequence[Dialogue], *, today: date, zone: ZoneInfo, t: Translate
) -> list[tuple[str, list[Dialogue]]]:
    """Dialogues under the day of their last message, newest first."""
    groups: dict[str, list[Dialogue]] = {}
    for row in sorted(rows, key=lambda row: row.updated, reverse=True):
        groups.setdefault(_day(row.updated.astimezone(zone).date(), today, t), []).append(row)
    return list(groups.items())


def _day(day: date, today: date, t: Translate) -> str:
    if day >= today:
        return t("Today")
    if day == today - timedelta(days=1):
        return t("Yesterday")
    if day > today - timedelta(days=7):
        return t("Last 7 days")
    return _months(day.year, t)[day.month - 1]


def _months(year: int, t: Translate) -> tuple[str, ...]:
    return (
        t("January {year}", year=year),
        t("February {year}", year=year),
        t("March {year}", year=year),
        t("April {year}", year=year),
        t("May {year}", year=year),
        t("June {year}", year=year),
        t("July {year}", year=year),
        t("August {year}", year=year),
        t("September {year}", year=year),
        t("October {year}", year=year),
        t("November {year}", year=year),
        t("December {year}", year=year),
    )
