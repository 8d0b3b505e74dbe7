"""Entries of a campaign as files. A spreadsheet must not run what strangers wrote: see `cell`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Iterator
from typing import Any

from tutelage.store import Store
from tutelage.store.campaigns import draws, entries
from tutelage.store.campaigns.entries import Entered
from tutelage.store.tables import Campaign

BATCH = 200
FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠", "\t", "\r", "\n")
"""How cells begin that a spreadsheet may take for something to carry out (OWASP, CSV injection)."""
SPEAKERS = {"user": "User", "assistant": "Assistant"}


def rows(store: Store, campaign: Campaign) -> Iterator[dict[str, Any]]:
    """What each entry shares, oldest first; `ticket` is what it puts into the draw."""
    after: str | None = None
    while True:
        with store.read() as tx:
            batch = entries.list_entries(tx, campaign.id, limit=BATCH, after=after)
        for entered in batch:
            yield _row(campaign, entered)
        if len(batch) < BATCH:
            return
        after = batch[-1].entry.id


def as_jsonl(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """One entry a line."""
    for row in rows:
        yield json.dumps(row, ensure_ascii=False) + "\n"


def as_csv(rows: Iterable[dict[str, Any]]) -> Iterator[str]:
    """With a header and a byte order mark, by which spreadsheets know that this is UTF-8."""
    names = ["entry", "ticket", "entered", "person", "version", "verdict", "reasons"]
    names += ["conversation", "note", "ideal"]
    yield "\ufeff" + _line(names)
    for row in rows:
        spoken = "\n\n".join(f"{SPEAKERS[turn['role']]}: {turn['content']}" for turn in row["messages"])
        flat = row | {"reasons": ", ".join(row["reasons"]), "conversation": spoken}
        yield _line([cell(flat[name] or "") for name in names])


def cell(text: str) -> str:
    """The text, after an apostrophe where a spreadsheet would take it for a formula."""
    return f"'{text}" if text.lstrip(" ").startswith(FORMULA) else text


def _line(cells: list[str]) -> str:
    line = io.StringIO()
    csv.writer(line, quoting=csv.QUOTE_ALL).writerow(cells)
    return line.getvalue()


def _row(campaign: Campaign, entered: Entered) -> dict[str, Any]:
    rating = entered.rating
    return {
        "entry": entered.entry.id,
        "ticket": draws.ticket(campaign, entered),
        "entered": entered.entry.created.isoformat(),
        "person": entered.person.name,
        "version": rating.model_version,
        "verdict": rating.verdict,
        "reasons": rating.reasons,
        "messages": [
            {"role": turn["role"], "content": turn["content"]} for turn in entries.shown_messages(rating)
        ],
        "note": rating.note,
        "ideal": rating.ideal,
    }
