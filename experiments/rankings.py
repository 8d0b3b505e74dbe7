"""How many rankings does it take? Reward models of the first 50, 100, 200 … of a finished `circle.py`.

    python experiments/rankings.py HOME --counts 50 100 200 400

Each is trained like the rounds' own, on so many rankings and on nothing else, and scores the first version's answers to
the questions that nobody asked. Two things are counted: how often it is of one mind with the hidden taste about two
answers, and how often the taste prefers the answer that it likes best to another of the first version's answers
(best-of-n: what there is to gain without any training of the policy). One JSON object a count.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from people import RECIPES, ROOT, tutelage
from scoring import Said, Scores, agreement, score
from taste import Question, Taste, interval


def first_answers(home: Path) -> tuple[list[Question], Said]:
    """The questions that were measured, and what the first version said to them."""
    rows = [json.loads(line) for line in (home / "answers.jsonl").read_text(encoding="utf-8").splitlines()]
    mine = [row for row in rows if row["version"] == rows[0]["version"]]
    return [Question(row["question"], row["ambiguous"]) for row in mine], [row["answers"] for row in mine]


def best_of(
    scores: Scores, said: Said, asked: Sequence[Question], taste: Taste, seed: int
) -> dict[str, float]:
    """How often the taste prefers the answer with the highest reward to another one, an equal one counting half."""
    shares = []
    for question, texts, rewards in zip(asked, said, scores["first"], strict=True):
        if len(texts) < 2:
            continue
        best = max(range(len(texts)), key=rewards.__getitem__)
        values = [taste.value(question, text) for text in texts]
        others = [value for place, value in enumerate(values) if place != best]
        shares.append(
            statistics.fmean((values[best] > each) + 0.5 * (values[best] == each) for each in others)
        )
    return interval(shares, seed)


def look(home: Path, recipe: dict[str, Any], count: int, seed: int) -> dict[str, Any]:
    """Train on the first so many rankings, and compare with the taste."""
    settings = {"model": recipe["model"], **recipe["reward"], "seed": seed}
    chosen = [part for name, value in settings.items() for part in ("--set", f"{name}={json.dumps(value)}")]
    limits = f"limits={{ ranking = {count}, thumbs = 0 }}"
    made = tutelage(
        home,
        *("train", "reward", str(ROOT / "recipes/reward.toml"), "--start", "start"),
        *("--name", f"first-{count}-{seed}", *chosen, "--set", limits),
    )
    version = tutelage(home, "versions", "publish", made["folder"])["name"]
    asked, said = first_answers(home)
    scores = score(home, version, asked, {"first": said})
    taste = Taste(reliability=1.0)
    return {
        "rankings": count,
        "trained_on": made["comparisons"],
        "held_out_accuracy": made["held_out_accuracy"],
        "agrees_with_taste": agreement(scores, {"first": said}, asked, taste, seed),
        "best_of_n": best_of(scores, said, asked, taste, seed),
    }


def main() -> None:
    """Print a line for each count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("home", type=Path, help="of a finished `circle.py --home`")
    parser.add_argument("--model", choices=list(RECIPES), default="builtin", help="the one it ran with")
    parser.add_argument("--counts", type=int, nargs="+", default=[50, 100, 200, 400])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    recipe = tomllib.loads(RECIPES[options.model].read_text(encoding="utf-8"))
    for count in options.counts:
        print(json.dumps(look(options.home.resolve(), recipe, count, options.seed)), flush=True)


if __name__ == "__main__":
    main()
