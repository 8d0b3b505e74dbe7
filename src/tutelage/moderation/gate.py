"""The content filter as the rest of the program sees it: text in, a verdict out, never an exception."""

from __future__ import annotations

import math
import queue
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import Unavailable
from tutelage.moderation.breaker import Breaker
from tutelage.moderation.categories import Category, Scores
from tutelage.moderation.classifier import Classifier, LinearClassifier
from tutelage.moderation.policy import Policy, Side

State = Literal["ok", "warned", "blocked", "unchecked"]
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the filter says of one text, and by which policy.

    `categories` are those over their threshold: for a blocked text those that block it. `help` is a text to show
    to somebody who may be about to hurt themselves.
    """

    state: State
    policy_version: str
    categories: tuple[Category, ...] = ()
    scores: Scores = field(default_factory=dict)
    help: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {**asdict(self), "categories": list(self.categories)}


class Gate:
    """Applies a policy to the scores of a classifier.

    When the classifier raises, answers nonsense or takes longer than the policy allows, the verdict is `unchecked`
    (a policy that fails open) or `blocked` without categories (one that fails closed); after repeated failures
    the classifier is left alone for a while. Safe to share between threads, as far as the classifier is.
    """

    def __init__(self, policy: Policy, classifier: Classifier, *, breaker: Breaker | None = None) -> None:
        self.policy = policy
        self.classifier = classifier
        self._version = policy.version
        self._breaker = breaker or Breaker()

    def check(self, text: str, *, side: Side, context: str = "") -> Verdict:
        """The verdict on `text`; `context` is what was said before it."""
        try:
            scores = self.scores([text], [context])[0]
        except Unavailable:
            return Verdict("unchecked" if self.policy.on_failure == "open" else "blocked", self._version)
        return self._judge(scores, text, side)

    def strict(self, *sides: Side) -> Gate:
        """A gate with the same classifier that blocks, on these sides, whatever this one warns of."""
        return Gate(self.policy.strict(*sides), self.classifier, breaker=self._breaker) if sides else self

    def scores(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[Scores]:
        """The classifier's answer for many texts at once. Raises Unavailable when it fails or is too slow."""
        if not self._breaker.allows():
            raise Unavailable("the content filter is resting after repeated failures")
        scores = _score_within(self.classifier, texts, contexts, self.policy.timeout_seconds)
        self._breaker.record(success=scores is not None)
        if scores is None:
            raise Unavailable("the content filter does not answer", hint="Try again in a moment.")
        return scores

    def _judge(self, scores: Scores, text: str, side: Side) -> Verdict:
        warned = self.policy.warned(scores, side)
        blocked = self.policy.blocked(scores, side)
        state: State = "blocked" if blocked else "warned" if warned else "ok"
        help_text = self._help(text) if "self-harm/intent" in warned else None
        return Verdict(state, self._version, blocked or warned, scores, help_text)

    def _help(self, text: str) -> str:
        return self.policy.help.chinese if _HAN.search(text) else self.policy.help.english


def default_gate(home: Path, *, policy: Path | None = None) -> Gate:
    """The filter of an installation: its own policy and weights where it has them, else the shipped ones.

    `policy` names another policy file. Raises ConfigError for a policy and ModelError for weights that cannot be used.
    """
    weights = own_weights(home)
    classifier = LinearClassifier.load(weights if weights.exists() else None)
    return Gate(Policy.load(policy or own_policy(home)), classifier)


def own_policy(home: Path) -> Path | None:
    """An installation's own policy file, or None where it has none."""
    path = home / "policy.toml"
    return path if path.exists() else None


def own_weights(home: Path) -> Path:
    """Where an installation keeps weights that it trained itself."""
    return home / "filter.npz"


def _score_within(
    classifier: Classifier, texts: Sequence[str], contexts: Sequence[str] | None, seconds: float
) -> list[Scores] | None:
    """The scores of the texts, or None when the classifier fails or is too slow.

    The classifier runs in a daemon thread: one that never returns cannot hold up the program's end.
    """
    answers: queue.SimpleQueue[list[Scores] | None] = queue.SimpleQueue()

    def run() -> None:
        try:
            answers.put(_checked(classifier.score(texts, contexts), len(texts)))
        except Exception:  # whatever a classifier raises, the texts were not checked
            answers.put(None)

    threading.Thread(target=run, daemon=True, name="moderation").start()
    try:
        return answers.get(timeout=seconds)
    except queue.Empty:
        return None


def _checked(answers: Sequence[Mapping[str, float]], expected: int) -> list[Scores]:
    if len(answers) != expected:
        raise ValueError(f"{len(answers)} answers for {expected} texts")
    if not all(math.isfinite(score) and 0 <= score <= 1 for scores in answers for score in scores.values()):
        raise ValueError("a score is a probability")
    return [dict(scores) for scores in answers]
