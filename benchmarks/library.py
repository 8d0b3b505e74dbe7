"""Side bar and search of somebody with 10,000 dialogues, in a store of a million messages: seconds at the server.

    python benchmarks/library.py [--dialogues 10000] [--messages 1000000] [--home FOLDER]

The store is filled with dialogues of ten messages of 40 words, drawn with the frequencies of a language (Zipf's law);
one person owns `--dialogues` of them, a thousand others the rest. A server in a process of its own answers over HTTP,
as in load.py. Asked are the first page of the side bar, a page far down, and searches: a rare word, a frequent one,
the most frequent of all, two words, part of a word, two Chinese letters, nothing that is there. With `--home` the
filled store is kept and used again. There is no peer. The last line is a JSON object: p50 and p95 in milliseconds.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

from tutelage.models.locate import locate
from tutelage.server.passwords import hash_password
from tutelage.store import Store, accounts, search
from tutelage.store.ids import new_id
from tutelage.store.tables import Dialogue, Message

TURNS, WORDS, VOCABULARY = 10, 40, 30_000
PEOPLE, LOT = 1_000, 500
PASSWORD = "a long password for a benchmark"
CHINESE = (
    "的一是不了在人有我他這個們中來上大為和國地到以說時要就出會可也你對生能而子那得於著下自之年過發後作里"
)


def main() -> None:
    options = _options()
    with tempfile.TemporaryDirectory() as temporary:
        home = options.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        words = vocabulary(random.Random(0))
        if not (home / "filled").exists():
            fill(home, words, options)
        locate("builtin", home)
        command = [sys.executable, str(Path(__file__).with_name("load.py")), "--serve", str(home)]
        server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert server.stdout is not None
        try:
            report = measure(json.loads(server.stdout.readline())["url"], words, options.rounds)
        finally:
            server.terminate()
            server.wait(30)
    print(f"{'':24}{'p50 ms':>10}{'p95 ms':>10}{'found':>8}")
    for name, row in report.items():
        print(f"{name:24}{row['p50_ms']:>10}{row['p95_ms']:>10}{row['found']:>8}")
    print(json.dumps(report))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--dialogues", type=int, default=10_000)
    parser.add_argument("--messages", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--home", type=Path)
    return parser.parse_args()


def vocabulary(rng: random.Random) -> list[str]:
    """Made-up words, the frequent ones short, a tenth of them Chinese."""
    syllables = [a + b for a in "bcdfghklmnprstvw" for b in ("a", "e", "i", "o", "u", "an", "er", "in", "ou")]
    found: dict[str, None] = {}
    while len(found) < VOCABULARY:
        if rng.random() < 0.1:
            found["".join(rng.choices(CHINESE, k=2))] = None
            if len(found) % 2:
                found["".join(rng.choices(CHINESE, k=4))] = None
        else:
            found["".join(rng.choices(syllables, k=1 + len(found) // 200 % 4 + (len(found) > 100)))] = None
    return list(found)[:VOCABULARY]


def fill(home: Path, words: list[str], options: argparse.Namespace) -> None:
    """Write the dialogues, person after person: the text index is filled several times faster so.

    Its parts are merged at the end, as a server does in quiet moments.
    """
    rng, secret = random.Random(1), asyncio.run(hash_password(PASSWORD))
    weights = list(itertools.accumulate(1 / rank for rank in range(1, len(words) + 1)))
    store = Store.open(home / "tutelage.db")
    with store.write() as tx:
        reader, *others = (
            accounts.create_user(tx, name=f"person-{number}", password_hash=secret, role="user").id
            for number in range(1 + PEOPLE)
        )
    total, more = options.messages // TURNS, True
    each = max(1, (total - options.dialogues) // PEOPLE)
    for first in range(0, total, LOT):
        dialogues, messages = [], []
        for number in range(first, min(first + LOT, total)):
            dialogue, parent = new_id(), None
            place = max(0, number - options.dialogues) // each
            owner = reader if number < options.dialogues else others[min(place, PEOPLE - 1)]
            title = " ".join(rng.choices(words, cum_weights=weights, k=5))
            dialogues.append({"id": dialogue, "owner_id": owner, "title": title})
            for turn in range(TURNS):
                message = new_id()
                messages.append(
                    {
                        "id": message,
                        "dialogue_id": dialogue,
                        "parent_id": parent,
                        "role": ("user", "assistant")[turn % 2],
                        "author_kind": ("human", "model")[turn % 2],
                        "content": " ".join(rng.choices(words, cum_weights=weights, k=WORDS)),
                    }
                )
                parent = message
        with store.write() as tx:
            tx.execute(insert(Dialogue), dialogues)
            tx.execute(insert(Message), messages)
        print(f"\r{first + LOT:,} of {total:,} dialogues", end="", file=sys.stderr)
    while more:
        with store.write() as tx:
            more = search.tidy(tx)
    store.close()
    (home / "filled").touch()


def measure(url: str, words: list[str], rounds: int) -> dict[str, Any]:
    """What a browser would ask, each `rounds` times after one that does not count."""
    rng = random.Random(2)
    short = [word for word in words if len(word) == 2]
    long = [word for word in words if len(word) >= 3]
    queries = {
        "search, most frequent": lambda: long[0],
        "search, frequent": lambda: rng.choice(long[10:50]),
        "search, rare": lambda: rng.choice(long[5000:]),
        "search, two words": lambda: f"{rng.choice(long[10:100])} {rng.choice(long[100:1000])}",
        "search, part of a word": lambda: rng.choice([word for word in long if len(word) > 5])[1:5],
        "search, two letters": lambda: rng.choice(short),
        "search, not there": lambda: "xylophones",
    }
    report: dict[str, Any] = {}
    with httpx.Client(base_url=url, timeout=120) as client:
        client.post("/api/sign-in", json={"name": "person-0", "password": PASSWORD}).raise_for_status()
        page = client.get("/api/dialogues").json()["dialogues"]
        far = page
        for _ in range(100):
            following = client.get("/api/dialogues", params={"before": far[-1]["id"]}).json()["dialogues"]
            far = following or far
        asked = {
            "list": lambda: client.get("/api/dialogues"),
            "list, far down": lambda: client.get("/api/dialogues", params={"before": far[-1]["id"]}),
            **{
                name: lambda word=word: client.get("/api/search", params={"q": word()})
                for name, word in queries.items()
            },
        }
        for name, ask in asked.items():
            times, found = [], []
            for _ in range(rounds + 1):
                began = time.perf_counter()
                response = ask()
                times.append(1000 * (time.perf_counter() - began))
                found.append(len(response.raise_for_status().json().popitem()[1]))
            report[name] = {
                "p50_ms": round(statistics.median(times[1:]), 1),
                "p95_ms": round(statistics.quantiles(times[1:], n=20)[18], 1),
                "found": round(statistics.fmean(found[1:]), 1),
            }
            print(name, report[name], file=sys.stderr)
    return report


if __name__ == "__main__":
    main()
