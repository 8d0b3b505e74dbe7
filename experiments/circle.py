"""Does the whole circle learn a taste that nobody wrote down? People are simulated, everything else is real.

    make experiment-circle                                   # the model `tiny`, a few minutes on two cores
    python experiments/circle.py --model builtin --recipe recipes/improve.toml --chats 200 --rankings 300

A server runs with a model fine-tuned on demonstrations. Readers chat with it and give thumbs, trainers rank what it
says, all over HTTP as the pages do. They share a hidden taste: short answers, and a question back where the request is
ambiguous. Each of their judgements is random half of the time, so that a pair is put right in 75 of 100 cases. After
each round of training the new version answers, and the next round begins. What is measured is the hidden taste itself,
which no part of the system ever sees, on questions that nobody has asked in the chats.

Prints a table and, as its last line, one JSON object.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

ROOT = Path(__file__).parents[1]
PATIENCE = httpx.Timeout(600.0)


@dataclass(frozen=True)
class Taste:
    """What the simulated people like, and how often they say so."""

    reliability: float

    def value(self, question: str, answer: str) -> float:
        """Higher is better: short, and asking back where the request is ambiguous."""
        words = question.split()
        ambiguous = len(words) <= 3 and not question.strip().endswith("?")
        asks = answer.strip().endswith("?")
        return -len(answer) / 20 + (2.0 if ambiguous and asks else 0.0) - (3.0 if not answer.strip() else 0.0)

    def sincere(self, rng: random.Random) -> bool:
        """Whether a judgement follows the taste; the others are random, and right by half."""
        return rng.random() < 2 * self.reliability - 1


@dataclass
class Person:
    """Somebody with a browser."""

    client: httpx.Client
    rng: random.Random

    def send(self, method: str, path: str, body: Any = None) -> Any:
        """A request that has to work; returns its JSON, or None when there is none."""
        response = self.client.request(method, path, json=body, headers={"accept": "application/json"})
        if response.is_error:
            raise SystemExit(f"{method} {path}: {response.status_code} {response.text[:500]}")
        return response.json() if response.content else None

    def lines(self, path: str) -> list[dict[str, Any]]:
        """The JSON values of an answer that comes in lines."""
        return [json.loads(line) for line in self.client.post(path).text.splitlines()]


class Site:
    """A running server, its operator, and the people on it."""

    def __init__(self, url: str, link: str, seed: int) -> None:
        self.url = url
        self._rng = random.Random(seed)
        self.operator = self._visitor()
        self.operator.send("POST", "/api/operator-link", {"token": link.rsplit("/", 1)[-1]})
        self.key = self.operator.send("POST", "/operate/keys", {"name": "circle", "scopes": ["chat"]})[
            "secret"
        ]

    def person(self, name: str, role: str) -> Person:
        """A new person of a role, signed in, who lets the model learn from their chats."""
        secret = self.operator.send("POST", "/operate/people", {"name": name, "role": role})["secret"]
        found = self._visitor()
        found.send("POST", "/api/sign-in", {"name": name, "password": secret})
        found.send("PUT", "/account/preferences", {"consent": True})
        return found

    def answer(self, version: str, question: str, seed: int) -> str | None:
        """What a version says, by the interface for programs; None where the content filter blocks the question."""
        body = {
            "model": version,
            "messages": [{"role": "user", "content": question}],
            "temperature": 1.0,
            "seed": seed,
            "max_tokens": 96,
        }
        headers = {"authorization": f"Bearer {self.key}"}
        response = httpx.post(f"{self.url}/v1/chat/completions", json=body, headers=headers, timeout=PATIENCE)
        if response.is_error and response.json()["error"]["code"] == "content_policy_violation":
            return None
        if response.is_error:
            raise SystemExit(
                f"{version} was asked {question!r}: {response.status_code} {response.text[:500]}"
            )
        return str(response.json()["choices"][0]["message"]["content"])

    def _visitor(self) -> Person:
        return Person(httpx.Client(base_url=self.url, timeout=PATIENCE), random.Random(self._rng.random()))


def chat_and_rate(people: Sequence[Person], questions: Sequence[str], count: int, taste: Taste) -> None:
    """People ask, read and give thumbs: up for what is better than what they have mostly seen."""
    seen: list[float] = []
    for number in range(count):
        person = people[number % len(people)]
        question = person.rng.choice(questions)
        started = person.send("POST", "/api/dialogues", {"text": question})
        person.client.get(f"/api/answers/{started['answer_id']}/events")
        thread = person.send("GET", f"/api/dialogues/{started['dialogue_id']}")
        reply = thread["messages"][-1]
        if reply["status"] != "complete":
            continue
        value = taste.value(question, reply["content"])
        seen.append(value)
        good = value >= statistics.median(seen) if taste.sincere(person.rng) else person.rng.random() < 0.5
        verdict = {"verdict": "up" if good else "down"}
        person.send("PUT", f"/api/messages/{reply['id']}/rating", verdict)


def rank(people: Sequence[Person], count: int, taste: Taste) -> int:
    """Trainers rank until nothing is left or enough is done; returns how many rankings there were."""
    done, tries = 0, count
    waiting = list(people)
    while waiting and done < count:
        person = waiting.pop(0)
        event = person.lines("/rank/next")[-1]
        if "error" in event and tries > 0:  # the model had one answer only to what was drawn
            tries -= 1
            waiting.append(person)
            continue
        if not event.get("task"):
            continue
        task = person.send("GET", f"/rank/tasks/{event['task']}")
        question = task["prompt"][-1]["content"]
        order = person.rng.sample(task["candidates"], len(task["candidates"]))
        if taste.sincere(person.rng):
            order.sort(key=lambda each: taste.value(question, each["content"]), reverse=True)
        groups = [[each["id"]] for each in order]
        person.send("POST", f"/rank/tasks/{event['task']}", {"groups": groups})
        done += 1
        waiting.append(person)
    return done


def measure(site: Site, version: str, questions: Sequence[str], taste: Taste) -> dict[str, float]:
    """The hidden taste's opinion of a version, with the standard error of its mean over questions."""
    values, lengths = [], []
    for number, question in enumerate(questions):
        text = site.answer(version, question, seed=number)
        if text is None:
            continue
        values.append(taste.value(question, text))
        lengths.append(len(text))
    error = statistics.stdev(values) / len(values) ** 0.5
    return {
        "taste": round(statistics.fmean(values), 3),
        "error": round(error, 3),
        "length": round(statistics.fmean(lengths), 1),
    }


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


@contextlib.contextmanager
def serving(home: Path, model: str, seed: int) -> Iterator[Site]:
    """A server on a free port, for as long as the block lasts."""
    command = [sys.executable, "-m", "tutelage", "serve", "--port", "0", "--model", model, "--json"]
    log = (home / "server.log").open("w")
    server = subprocess.Popen(command, env=environment(home), stdout=subprocess.PIPE, stderr=log, text=True)
    assert server.stdout is not None
    try:
        told = json.loads(server.stdout.readline())
        yield Site(told["url"], told["operator_link"], seed)
    finally:
        server.terminate()
        server.wait()
        log.close()


def ask_questions(seed: int) -> tuple[list[str], list[str]]:
    """What people ask in the chats, and what nobody asks before the versions are measured."""
    lines = (ROOT / "recipes/tiny/demonstrations.jsonl").read_text(encoding="utf-8").splitlines()
    found = sorted({json.loads(line)["messages"][0]["content"] for line in lines})
    random.Random(seed).shuffle(found)
    return found[: 2 * len(found) // 3], found[2 * len(found) // 3 :]


def run(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The whole experiment; returns what is printed."""
    taste = Taste(options.reliability)
    asked, held_out = ask_questions(options.seed)
    tutelage(home, "import", "messages", str(ROOT / "recipes/tiny/demonstrations.jsonl"))
    few = f"epochs={options.epochs}"
    tuned = tutelage(home, "train", "sft", str(options.start), "--set", few)
    table: list[dict[str, Any]] = []
    with serving(home, options.model, options.seed) as site:
        first = tutelage(home, "versions", "publish", tuned["folder"])["name"]
        site.operator.send("POST", f"/operate/versions/{first}/promote", {})
        readers = [site.person(f"reader-{number}", "user") for number in range(options.readers)]
        trainers = [site.person(f"trainer-{number}", "trainer") for number in range(options.trainers)]
        table.append({"round": 0, "version": first, **measure(site, first, held_out, taste)})
        show(table[-1])
        for number in range(1, options.rounds + 1):
            chat_and_rate(readers, asked, options.chats, taste)
            ranked = rank(trainers, options.rankings, taste)
            settings = [part for each in (f"sft.{few}", *options.set) for part in ("--set", each)]
            report = tutelage(home, "improve", str(options.recipe), *settings)
            version, evaluation = report["version"], report["evaluation"]
            site.operator.send("POST", f"/operate/versions/{version}/promote", {"anyway": True})
            table.append(
                {
                    "round": number,
                    "version": version,
                    **measure(site, version, held_out, taste),
                    "rankings": ranked,
                    "gate": evaluation["gate"]["outcome"],
                    "wins": round(evaluation["win_rate_over_before"]["value"], 3),
                    "reward_accuracy": evaluation["reward"]["held_out_accuracy"]["value"],
                }
            )
            show(table[-1])
    gain = table[-1]["taste"] - table[0]["taste"]
    error = (table[-1]["error"] ** 2 + table[0]["error"] ** 2) ** 0.5
    return {"gain": round(gain, 3), "error": round(error, 3), "rounds": table}


def show(row: dict[str, Any]) -> None:
    """One line of the table."""
    print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--start", type=Path, default=ROOT / "recipes/tiny/sft.toml")
    parser.add_argument("--recipe", type=Path, default=ROOT / "recipes/tiny/improve.toml")
    parser.add_argument("--set", action="append", default=[], help="a setting of the recipe; may be repeated")
    parser.add_argument(
        "--epochs", type=int, default=4, help="of fine-tuning: few, so that answers still differ"
    )
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--chats", type=int, default=80, help="conversations a round")
    parser.add_argument("--rankings", type=int, default=80, help="rankings a round")
    parser.add_argument("--readers", type=int, default=4)
    parser.add_argument("--trainers", type=int, default=3)
    parser.add_argument(
        "--reliability", type=float, default=0.75, help="share of pairs that people put right"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--home", type=Path, help="where to keep everything; a temporary folder when left out"
    )
    return parser.parse_args(arguments)


def main() -> None:
    """Run the experiment and print what came out."""
    options = options_of()
    with tempfile.TemporaryDirectory(prefix="circle-") as temporary:
        home = options.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        print(json.dumps(run(options, home)))


if __name__ == "__main__":
    main()
