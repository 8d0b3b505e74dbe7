"""What the simulated people like, and never say: the hidden taste of `circle.py`, and how versions fare by it."""

from __future__ import annotations

import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

DATA = Path(__file__).parent / "circle"
ENDS = (".", "!", "?")
CLOSING = "\"')*”’"  # may stand behind a sentence's last mark
RESAMPLES = 2000


@dataclass(frozen=True)
class Question:
    """Something to ask. Whether it is ambiguous, only the people know: the system gets the text alone."""

    text: str
    ambiguous: bool


@dataclass(frozen=True)
class Taste:
    """Likes answers of `shortest` to `longest` words, and a question back where the request is ambiguous.

    `reliability` is the share of pairs that its people put right.
    """

    reliability: float
    shortest: int = 8
    longest: int = 20

    def value(self, question: Question, answer: str) -> float:
        """0 is perfect; everything that bothers takes something away. An answer of one word loses 1.75 and more."""
        text = answer.rstrip().rstrip(CLOSING)
        words = len(text.split())
        wrong_length = 0.25 * max(0, self.shortest - words) + 0.05 * max(0, words - self.longest)
        asks = text.endswith("?")
        guesses = 1.5 if question.ambiguous and not asks else 0.0
        bothers = 1.0 if asks and not question.ambiguous else 0.0
        broken_off = 0.0 if text.endswith(ENDS) else 1.0
        return -(wrong_length + guesses + bothers + broken_off)

    def pleased(self, question: Question, answer: str) -> bool:
        """Whether an answer deserves thumbs up."""
        return self.value(question, answer) > -0.5

    def sincere(self, rng: random.Random) -> bool:
        """Whether a judgement follows the taste; the others are random, and right by half."""
        return rng.random() < 2 * self.reliability - 1


def questions(seed: int) -> tuple[list[Question], list[Question]]:
    """What is asked in the chats, and what nobody asks before the versions are measured: a third of either kind."""
    lines = (DATA / "questions.jsonl").read_text(encoding="utf-8").splitlines()
    found = [Question(**json.loads(line)) for line in lines]
    random.Random(seed).shuffle(found)
    asked: list[Question] = []
    unused: list[Question] = []
    for ambiguous in (False, True):
        kind = [question for question in found if question.ambiguous == ambiguous]
        unused += kind[: len(kind) // 3]
        asked += kind[len(kind) // 3 :]
    return asked, unused


def win_rate(new: Sequence[Sequence[float]], old: Sequence[Sequence[float]], seed: int) -> dict[str, float]:
    """How often a new answer is worth more than an old one to the same question, an equal one counting half.

    new, old: for each question, what each of its answers is worth. The 95 % interval is a bootstrap over questions.
    """
    shares = [
        statistics.fmean((a > b) + 0.5 * (a == b) for a in mine for b in theirs)
        for mine, theirs in zip(new, old, strict=True)
    ]
    return interval(shares, seed)


def interval(values: Sequence[float], seed: int) -> dict[str, float]:
    """A mean over questions with its 95 % bootstrap interval."""
    rng = random.Random(seed)
    means = sorted(statistics.fmean(rng.choices(values, k=len(values))) for _ in range(RESAMPLES))
    low, high = means[RESAMPLES // 40], means[-RESAMPLES // 40 - 1]
    return {"value": round(statistics.fmean(values), 3), "low": round(low, 3), "high": round(high, 3)}
