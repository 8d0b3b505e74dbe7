"""Does the whole circle learn a taste that nobody wrote down? People are simulated, everything else is real.

    make experiment-circle                        # the built-in model: about an hour on two cores
    make experiment-circle ARGS="--model tiny"    # every part at work, in some minutes

A server runs with a model fine-tuned on demonstrations of every manner: terse, plain and chatty ones, some that ask
back and some that guess. Readers chat with it, give thumbs and ask for another answer where they were not pleased;
trainers rank what it says; all over HTTP, as the pages do. They share a hidden taste (`taste.py`): 8 to 20 words,
and a question back where the request is ambiguous, but not elsewhere. Half of their judgements are random, so that
75 of 100 pairs are put right. Then comes a round of training; a version that passes the gate is promoted and
answers in the next round, one that the gate refuses is not.

Measured is what no part of the system ever sees: how often the hidden taste prefers a version's answers to the first
version's, on questions that nobody asked before, with an interval over questions. Beside it stands the judge, the
reward model that trained nothing, on the same answers. Everything is also in HOME/circle.jsonl, a line as soon as it
is known, and the answers in HOME/answers.jsonl. `rankings.py` then says how many rankings it takes.
"""

from __future__ import annotations

import argparse
import json
import signal
import statistics
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from people import RECIPES, ROOT, Site, chat_and_rate, rank, serving, tutelage
from scoring import Said, opinion, score
from taste import DATA, Question, Taste, interval, questions, win_rate

from tutelage.evaluation.gate import checks_of


class Record:
    """What is known so far: a line on the screen and one in the file, for everything that happens."""

    def __init__(self, home: Path) -> None:
        self._file = home / "circle.jsonl"
        self._began = time.monotonic()

    @property
    def minutes(self) -> float:
        """Since the beginning."""
        return round((time.monotonic() - self._began) / 60, 1)

    def note(self, event: str, **facts: Any) -> dict[str, Any]:
        """Write a line; returns it."""
        row = {"event": event, "minutes": self.minutes, **facts}
        with self._file.open("a", encoding="utf-8") as lines:
            lines.write(json.dumps(row, ensure_ascii=False) + "\n")
        print(f"{row['minutes']:6.1f} min  {event}: ", end="")
        print(", ".join(f"{name} {_shown(value)}" for name, value in facts.items()), flush=True)
        return row


def _shown(value: Any) -> str:
    if isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
        if value["value"] is None:
            return "unknown: too little data"
        return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
    return str(value)


def run(options: argparse.Namespace, home: Path) -> dict[str, Any]:
    """The whole experiment; returns its verdict."""
    record, taste = Record(home), Taste(options.reliability)
    asked, unused = questions(options.seed)
    recipe = tomllib.loads(RECIPES[options.model].read_text(encoding="utf-8"))
    said: dict[str, Said] = {}
    with serving(home, options.model, options.seed) as site:
        first = begin(site, home, recipe, options.set, record)
        said[first] = measure(site, home, first, unused, options)
        record.note("measured", version=first, **fare(said[first], said[first], unused, taste, options.seed))
        readers = [site.person(f"reader-{number}", "user") for number in range(options.readers)]
        trainers = [site.person(f"trainer-{number}", "trainer") for number in range(options.trainers)]
        version, known = first, {question.text: question for question in asked}
        for number in range(1, options.rounds + 1):
            thumbs = chat_and_rate(readers, asked, options.chats, taste)
            record.note("chats", round=number, chats=options.chats, thumbs=thumbs)
            record.note("rankings", round=number, rankings=rank(trainers, known, options.rankings, taste))
            settings = [part for each in options.set for part in ("--set", each)]
            report = tutelage(home, "improve", str(RECIPES[options.model]), *settings)
            version = report["version"]
            record.note("trained", round=number, **told(report["evaluation"]))
            said[version] = measure(site, home, version, unused, options)
            refused = site.promote(version)
            record.note("promoted" if refused is None else "not promoted", version=version, why=refused or "")
            row = fare(said[version], said[first], unused, taste, options.seed)
            measured = record.note("measured", round=number, version=version, **row)
    judge = tutelage(home, "versions", "publish", str(home / "runs" / report["round"] / "judge"))["name"]
    scores = score(home, judge, unused, said)
    judged = opinion(scores, said, unused, taste, new=version, old=first, seed=options.seed)
    agrees = (judged["gain"]["value"] > 0) == (measured["win_rate"]["value"] > 0.5)
    wins = measured["win_rate"]
    record.note("judged", **judged)
    return record.note(
        "verdict",
        win_rate=wins,
        judge_agrees=agrees,
        learnt=agrees and wins["value"] >= 0.65 and wins["low"] > 0.5,
    )


def begin(site: Site, home: Path, recipe: dict[str, Any], overrides: Sequence[str], record: Record) -> str:
    """Fine-tune on the demonstrations as the rounds will, and let the outcome serve; returns its version."""
    tutelage(home, "import", "messages", str(DATA / "demonstrations.jsonl"))
    settings = {"model": recipe["model"], **recipe["sft"]}
    wanted = [f"{name}={json.dumps(value)}" for name, value in settings.items()]
    wanted += [each.removeprefix("sft.") for each in overrides if each.startswith("sft.")]
    chosen = [part for each in wanted for part in ("--set", each)]
    tuned = tutelage(home, "train", "sft", str(ROOT / "recipes/sft.toml"), "--name", "start", *chosen)
    first: str = tutelage(home, "versions", "publish", tuned["folder"])["name"]
    record.note("started", version=first, loss=round(tuned["held_out_loss"], 3))
    if refused := site.promote(first):
        raise SystemExit(refused)
    return first


def measure(
    site: Site, home: Path, version: str, unused: Sequence[Question], options: argparse.Namespace
) -> Said:
    """A version's answers to the questions that nobody asked, kept in a file as well."""
    said = site.answers(version, unused, options.samples, options.answer_tokens)
    with (home / "answers.jsonl").open("a", encoding="utf-8") as lines:
        for question, texts in zip(unused, said, strict=True):
            row = {"version": version, "question": question.text, "ambiguous": question.ambiguous}
            lines.write(json.dumps(row | {"answers": texts}, ensure_ascii=False) + "\n")
    return said


def fare(said: Said, first: Said, asked: Sequence[Question], taste: Taste, seed: int) -> dict[str, Any]:
    """What the hidden taste thinks of a version, alone and beside the first one."""
    rows = [
        (question, mine, old) for question, mine, old in zip(asked, said, first, strict=True) if mine and old
    ]

    def wins(kind: Sequence[tuple[Question, list[str], list[str]]]) -> dict[str, float]:
        mine, old = ([[taste.value(row[0], text) for text in row[place]] for row in kind] for place in (1, 2))
        return win_rate(mine, old, seed)

    def share(ambiguous: bool) -> float:
        texts = [text for row in rows if row[0].ambiguous == ambiguous for text in row[1]]
        return round(statistics.fmean(text.rstrip().endswith("?") for text in texts), 3)

    lengths = [len(text.split()) for row in rows for text in row[1]]
    fitting = [taste.shortest <= length <= taste.longest for length in lengths]
    means = [statistics.fmean(taste.value(row[0], text) for text in row[1]) for row in rows]
    return {
        "questions": len(rows),
        "win_rate": wins(rows),
        "wins_clear": wins([row for row in rows if not row[0].ambiguous]),
        "wins_ambiguous": wins([row for row in rows if row[0].ambiguous]),
        "taste": interval(means, seed),
        "words": round(statistics.fmean(lengths), 1),
        "fitting_length": round(statistics.fmean(fitting), 3),
        "asks_when_ambiguous": share(True),
        "asks_when_clear": share(False),
    }


def told(evaluation: dict[str, Any]) -> dict[str, Any]:
    """What a round says of itself: its gate, its judge, its reward model, how far PPO went."""
    gate = evaluation["gate"]
    checks = {check.name: f"{check.outcome}, {check.shown}" for check in checks_of(evaluation)}
    return {
        "gate": gate["outcome"],
        "checks": checks,
        "judge_wins_over_before": evaluation["win_rate_over_before"],
        "judge_wins_over_sft": evaluation["win_rate_over_sft"],
        "reward_accuracy": evaluation["reward"]["held_out_accuracy"],
        "kl": round(evaluation["ppo"]["kl"]["after"], 2),
        "reward_gain": evaluation["ppo"]["reward_gain"],
        "comparisons": evaluation["reward"]["comparisons"],
    }


def options_of(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What may be set."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    add = parser.add_argument
    add("--model", choices=list(RECIPES), default="builtin")
    add("--set", action="append", default=[], help="a setting of the recipe; may be repeated")
    add("--rounds", type=int, default=2)
    add("--chats", type=int, default=200, help="conversations a round")
    add("--rankings", type=int, default=200, help="rankings a round")
    add("--readers", type=int, default=16)
    add("--trainers", type=int, default=8)
    add("--reliability", type=float, default=0.75, help="share of pairs that people put right")
    add("--samples", type=int, default=4, help="answers a version gives to each question that is measured")
    add("--answer-tokens", type=int, default=96, help="longest answer where versions are measured")
    add("--seed", type=int, default=0)
    add("--home", type=Path, help="where to keep everything; a temporary folder when left out")
    return parser.parse_args(arguments)


def main() -> None:
    """Run the experiment; the last line says whether the taste was learnt."""
    options = options_of()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended from outside"))  # so that the server ends, too
    with tempfile.TemporaryDirectory(prefix="circle-") as temporary:
        home = options.home or Path(temporary)
        home.mkdir(parents=True, exist_ok=True)
        run(options, home.resolve())


if __name__ == "__main__":
    main()
