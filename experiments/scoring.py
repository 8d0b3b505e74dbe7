"""What a reward model thinks of answers that are kept, beside what the hidden taste thinks of them."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

from people import environment
from taste import Question, Taste, interval, win_rate

Said = list[list[str]]
"""What a version said: for each question, its answers."""

Scores = dict[str, list[list[float]]]
"""For each version and each question, the reward of each answer."""


def score(home: Path, reward: str, asked: Sequence[Question], said: Mapping[str, Said]) -> Scores:
    """Rewards by a published reward model."""
    places = [(name, place) for name, each in said.items() for place in range(len(asked)) if each[place]]
    lines = [
        json.dumps({"prompt": asked[place].text, "completions": said[name][place]}) for name, place in places
    ]
    command = [sys.executable, "-m", "tutelage", "score", "--reward", reward]
    done = subprocess.run(
        command, env=environment(home), input="\n".join(lines), capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"score: {done.stderr[-2000:]}")
    found: Scores = {name: [[] for _ in asked] for name in said}
    for (name, place), line in zip(places, done.stdout.splitlines(), strict=True):
        found[name][place] = [each["reward"] for each in json.loads(line)["rewards"]]
    return found


def opinion(
    scores: Scores,
    said: Mapping[str, Said],
    asked: Sequence[Question],
    taste: Taste,
    *,
    new: str,
    old: str,
    seed: int,
) -> dict[str, Any]:
    """A reward model's word on two versions, and how often it is of one mind with the hidden taste."""
    both = [pair for pair in zip(scores[new], scores[old], strict=True) if all(pair)]
    gains = [statistics.fmean(mine) - statistics.fmean(theirs) for mine, theirs in both]
    return {
        "gain": interval(gains, seed),
        "win_rate": win_rate([mine for mine, _ in both], [theirs for _, theirs in both], seed),
        "agrees_with_taste": agreement(scores, said, asked, taste, seed),
    }


def agreement(
    scores: Scores, said: Mapping[str, Said], asked: Sequence[Question], taste: Taste, seed: int
) -> dict[str, float]:
    """Among answers to one question that the taste tells apart, the share of pairs that the reward puts right."""
    shares = []
    for place, question in enumerate(asked):
        rated = [
            (taste.value(question, text), reward)
            for name, each in said.items()
            for text, reward in zip(each[place], scores[name][place], strict=True)
        ]
        pairs = [(a, b) for a, b in combinations(rated, 2) if a[0] != b[0]]
        if pairs:
            shares.append(statistics.fmean((a[0] > b[0]) == (a[1] > b[1]) for a, b in pairs))
    return interval(shares, seed)
