"""Simulated people on a running server: they chat, give thumbs and rank over HTTP, as the pages do."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import httpx
from taste import Question, Taste

ROOT = Path(__file__).parents[1]
RECIPES = {"builtin": ROOT / "recipes/circle.toml", "tiny": ROOT / "recipes/tiny/circle.toml"}
PATIENCE = httpx.Timeout(1800.0)
T = TypeVar("T")
AT_ONCE = 32  # answers that are asked for at a time through the interface for programs


@dataclass
class Person:
    """Somebody with a browser, a name and a mood of their own."""

    client: httpx.Client
    rng: random.Random

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """A request that has to work; returns its JSON, or None when there is none."""
        response = self.client.request(method, path, json=body, headers={"accept": "application/json"})
        if response.is_error:
            raise SystemExit(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None

    def read(self, started: dict[str, Any]) -> dict[str, Any]:
        """Follow an answer to its end; returns it as a message."""
        self.client.get(f"/api/answers/{started['answer_id']}/events")
        path = f"/api/dialogues/{started['dialogue_id']}?leaf_id={started['answer_id']}"
        message: dict[str, Any] = self.send("GET", path)["messages"][-1]
        return message


class Site:
    """A running server, its operator, and the people on it."""

    def __init__(self, url: str, link: str, seed: int) -> None:
        self.url = url
        self._rng = random.Random(seed)
        self.operator = self._visitor()
        self.operator.send("POST", "/api/operator-link", {"token": link.rsplit("/", 1)[-1]})
        wanted = {"name": "circle", "scopes": ["chat"]}
        key = self.operator.send("POST", "/operate/keys", wanted)["secret"]
        self._program = httpx.Client(
            base_url=url,
            headers={"authorization": f"Bearer {key}"},
            timeout=PATIENCE,
            limits=httpx.Limits(max_keepalive_connections=0),
        )

    def person(self, name: str, role: str) -> Person:
        """A new person of a role, signed in, who lets the model learn from their chats."""
        secret = self.operator.send("POST", "/operate/people", {"name": name, "role": role})["secret"]
        found = self._visitor()
        found.send("POST", "/api/sign-in", {"name": name, "password": secret})
        found.send("PUT", "/account/preferences", {"consent": True})
        return found

    def promote(self, version: str) -> str | None:
        """Let a version answer in the chat from now on; returns why the server refuses, where it does."""
        response = self.operator.client.post(f"/operate/versions/{version}/promote", json={})
        if response.status_code == 409:
            return str(response.json()["error"]["message"])
        if response.is_error:
            raise SystemExit(f"promote {version}: {response.status_code} {response.text[:500]}")
        return None

    def answers(
        self, version: str, asked: Sequence[Question], samples: int, max_tokens: int
    ) -> list[list[str]]:
        """What a version says to each question, so many times, by the interface for programs.

        The same seeds whatever the version. An empty list where the content filter blocks the question.
        """
        wanted = [(place, number) for place in range(len(asked)) for number in range(samples)]
        with ThreadPoolExecutor(AT_ONCE) as pool:
            said = list(
                pool.map(
                    lambda each: self._answer(
                        version, asked[each[0]].text, seed=each[0] * samples + each[1], max_tokens=max_tokens
                    ),
                    wanted,
                )
            )
        found: list[list[str]] = [[] for _ in asked]
        for (place, _), text in zip(wanted, said, strict=True):
            if text is not None:
                found[place].append(text)
        return found

    def _answer(self, version: str, question: str, *, seed: int, max_tokens: int) -> str | None:
        body = {
            "model": version,
            "messages": [{"role": "user", "content": question}],
            "temperature": 1.0,
            "seed": seed,
            "max_tokens": max_tokens,
        }
        response = self._program.post("/v1/chat/completions", json=body)
        if response.is_error and response.json()["error"]["code"] == "content_policy_violation":
            return None
        if response.is_error:
            raise SystemExit(f"{version}, asked {question!r}: {response.status_code} {response.text[:500]}")
        return str(response.json()["choices"][0]["message"]["content"])

    def _visitor(self) -> Person:
        return Person(httpx.Client(base_url=self.url, timeout=PATIENCE), random.Random(self._rng.random()))


def chat_and_rate(people: Sequence[Person], asked: Sequence[Question], count: int, taste: Taste) -> int:
    """People ask and give thumbs, and after thumbs down ask for another answer, once; returns how many thumbs.

    Every question comes up before one comes again.
    """
    deck = [
        question
        for _ in range(-(-count // len(asked)))
        for question in people[0].rng.sample(asked, len(asked))
    ]
    left = _heap(deck[:count])

    def visit(person: Person) -> int:
        thumbs = 0
        while question := _take(left):
            reply = person.read(person.send("POST", "/api/dialogues", {"text": question.text}))
            for last in (False, True):
                if reply["status"] != "complete":
                    break
                pleased = taste.pleased(question, reply["content"])
                good = pleased if taste.sincere(person.rng) else person.rng.random() < 0.5
                verdict = {"verdict": "up" if good else "down"}
                person.send("PUT", f"/api/messages/{reply['id']}/rating", verdict)
                thumbs += 1
                if good or last:
                    break
                reply = person.read(person.send("POST", f"/api/messages/{reply['id']}/regenerate"))
        return thumbs

    return sum(_all_at_once(people, visit))


def rank(people: Sequence[Person], known: dict[str, Question], count: int, taste: Taste) -> int:
    """Trainers rank until nothing is left or enough is done; returns how many rankings there were."""
    left = _heap(range(1, count + 1))

    def work(person: Person) -> int:
        done = 0
        while _take(left):
            event = json.loads(person.client.post("/rank/next").text.splitlines()[-1])
            if not event.get("task"):  # nothing to rank, or one answer only to what was drawn
                continue
            task = person.send("GET", f"/rank/tasks/{event['task']}")
            question = known[task["prompt"][-1]["content"]]
            groups = order(task["candidates"], question, taste, person.rng)
            person.send("POST", f"/rank/tasks/{event['task']}", {"groups": groups})
            done += 1
        return done

    return sum(_all_at_once(people, work))


def order(
    candidates: Sequence[dict[str, Any]], question: Question, taste: Taste, rng: random.Random
) -> list[list[str]]:
    """Groups of candidate ids, best first: by the taste, equal ones as ties, or at random."""
    shuffled = rng.sample(list(candidates), len(candidates))
    if not taste.sincere(rng):
        return [[each["id"]] for each in shuffled]
    groups: dict[float, list[str]] = {}
    for each in shuffled:
        groups.setdefault(taste.value(question, each["content"]), []).append(each["id"])
    return [groups[value] for value in sorted(groups, reverse=True)]


@contextlib.contextmanager
def serving(home: Path, model: str, seed: int) -> Iterator[Site]:
    """A server on a free port, for as long as the block lasts."""
    command = [sys.executable, "-m", "tutelage", "serve", "--port", "0", "--model", model, "--json"]
    with (home / "server.log").open("w") as log:
        server = subprocess.Popen(
            command, env=environment(home), stdout=subprocess.PIPE, stderr=log, text=True
        )
        assert server.stdout is not None
        try:
            told = json.loads(server.stdout.readline())
            yield Site(told["url"], told["operator_link"], seed)
        finally:
            server.terminate()
            server.wait()


def tutelage(home: Path, *arguments: str) -> dict[str, Any]:
    """A command in the experiment's home; returns its JSON."""
    command = [sys.executable, "-m", "tutelage", *arguments, "--json"]
    done = subprocess.run(command, env=environment(home), capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)}: {done.stderr[-2000:]}")
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def environment(home: Path) -> dict[str, str]:
    """Where the experiment lives."""
    return {**os.environ, "TUTELAGE_HOME": str(home), "PYTHONPATH": str(ROOT / "src")}


def _heap(things: Iterable[T]) -> queue.SimpleQueue[T]:
    """Things that several people take from."""
    left: queue.SimpleQueue[T] = queue.SimpleQueue()
    for each in things:
        left.put(each)
    return left


def _take(left: queue.SimpleQueue[T]) -> T | None:
    """The next one; None when nothing is left."""
    try:
        return left.get_nowait()
    except queue.Empty:
        return None


def _all_at_once(people: Sequence[Person], task: Callable[[Person], int]) -> list[int]:
    with ThreadPoolExecutor(len(people)) as pool:
        return list(pool.map(task, people))
