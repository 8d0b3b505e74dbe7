"""Labelled text: examples, how sets of them are described, and how they are split."""

from __future__ import annotations

import csv
import hashlib
import html
import json
import re
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any, Literal

from tutelage.errors import DataError
from tutelage.moderation.categories import CATEGORIES, Category

Split = Literal["train", "calibration", "test"]
Labels = Mapping[Category, bool]
Raw = tuple[str, str, str]
"""Text, the set's own label, and a key shared by rows that must stay together."""

TRAINED = tuple(name for name in CATEGORIES if name != "sexual/minors")
_ABOUT_MINORS = re.compile(
    r"\b(child(ren)?|kids?|minors?|under-?aged?|(pre)?teen\w*|pa?edo\w*|toddlers?|infants?|bab(y|ies)|daughters?|youths?"
    r"|(school|little|young) ?(boy|girl)s?)\b"
    r"|儿童|孩子|小孩|未成年|幼[儿女童]|少[女年]|小学生|中学生|婴儿|兒童|幼兒|小學生|中學生|嬰兒",
    re.IGNORECASE,
)
_MOST = 30
_FULL_WEIGHT = 8
"""A pattern with more sentences than this counts for no more than this many."""
_TWEET_MARKS = re.compile(r"\bRT\b|\[(?:USER|URL)\]|^!+\s")


@dataclass(frozen=True, slots=True)
class Example:
    """A text, what is known about it, and which split it belongs to."""

    text: str
    labels: Labels
    source: str
    split: Split
    weight: float = 1.0

    @property
    def benign(self) -> bool:
        """Known to be harmless in every category."""
        return len(self.labels) == len(TRAINED) and not any(self.labels.values())


@dataclass(frozen=True, slots=True)
class Source:
    """One labelled set: where it lies, how it is read, and what its labels mean here.

    A label that `meaning` does not name says nothing we can use: its rows are left out. `limit` bounds the rows of
    one label, `weight` what each row counts for.
    """

    name: str
    path: str
    read: Callable[[Path], Iterator[Raw]]
    meaning: Mapping[str, Labels]
    weight: float = 1.0
    limit: Mapping[str, int] | None = None


def means(*present: Category, absent: tuple[Category, ...] = ()) -> dict[Category, bool]:
    """What a label says: these categories are present, those are absent, all others unknown."""
    return {**dict.fromkeys(absent, False), **dict.fromkeys(present, True)}


def read(source: Source, folder: Path) -> Iterator[Example]:
    """The usable rows of one set, without repeats. Raises DataError for a file that is missing or malformed."""
    path = folder / source.path
    if not path.exists():
        raise DataError(
            f"the set {source.name!r} is not there", path=path, hint="`--data` names the folder above."
        )
    try:
        raw = list(source.read(path))
    except (KeyError, TypeError, IndexError, UnicodeDecodeError, json.JSONDecodeError, csv.Error) as error:
        raise DataError(
            f"the set {source.name!r} has another form than expected: {error!r}", path=path
        ) from error
    seen: set[str] = set()
    counts: dict[str, int] = {}
    for text, label, key in sorted(raw, key=lambda row: _digest(row[0])) if source.limit else raw:
        text = clean(text)
        labels = source.meaning.get(label)
        if (
            labels is None
            or not text
            or text in seen
            or (any(labels.values()) and _ABOUT_MINORS.search(text))
        ):
            continue
        if source.limit and counts.get(label, 0) >= source.limit.get(label, len(raw)):
            continue
        seen.add(text)
        counts[label] = counts.get(label, 0) + 1
        yield Example(text, labels, source.name, split_of(key), source.weight)


def clean(text: str) -> str:
    """Without the marks of the place it was collected from: HTML entities, retweets, placeholders."""
    return " ".join(_TWEET_MARKS.sub(" ", html.unescape(text)).split())


def split_of(key: str) -> Split:
    """Seventy of a hundred keys are trained on, fifteen calibrate, fifteen test. Depends on the key alone."""
    place = _digest(key) % 100
    return "train" if place < 70 else "calibration" if place < 85 else "test"


def _digest(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.strip().encode()).digest()[:8], "big")


SEEDS = Path(__file__).with_name("seeds.toml")
HELD_OUT = Path(__file__).with_name("held_out.toml")


def written(path: Path = SEEDS, *, weight: float = 2.0) -> Iterator[Example]:
    """Sentences that this package's authors wrote. A pattern goes into one split with all that it stands for."""
    content = tomllib.loads(path.read_text(encoding="utf-8"))
    for group in content["group"]:
        labels = means(*group["present"], absent=TRAINED)
        for pattern in group["text"]:
            texts = expanded(pattern, content.get("slots", {}))
            share = weight * min(1.0, _FULL_WEIGHT / len(texts))
            for text in texts:
                yield Example(text, labels, group.get("source", "seeds"), split_of(pattern), share)


def expanded(pattern: str, slots: Mapping[str, list[str]]) -> list[str]:
    """The sentences a pattern with `{slot}` stands for; of very many, some, evenly spread."""
    names = re.findall(r"{(\w+)}", pattern)
    choices = list(product(*(slots[name] for name in names)))
    step = 1 if len(choices) <= _MOST else len(choices) / _MOST
    chosen = (choices[int(place * step)] for place in range(min(len(choices), _MOST)))
    return [pattern.format(**dict(zip(names, choice, strict=True))) for choice in chosen]


def json_lines(path: Path) -> Iterator[Any]:
    """Each line parsed. Raises DataError with the line that is not JSON, and for a file that cannot be read."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    row = json.loads(line)
                except ValueError as error:  # neither JSON nor, where it is text at all, UTF-8
                    raise DataError(f"this is not JSON: {error}", path=path, line=number) from error
                yield row
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", path=path) from error


def labelled_here(path: Path, *, weight: float = 5.0) -> Iterator[Example]:
    """What the people of one installation labelled: JSON lines {"text", "categories"}, none if harmless.

    Raises DataError with the line that is wrong.
    """
    for number, row in enumerate(json_lines(path), 1):
        try:
            text, present = clean(row["text"]), row["categories"]
        except (KeyError, TypeError, AttributeError):
            text, present = "", None
        if not isinstance(present, list):
            raise DataError('a row needs a "text" and a list of "categories"', path=path, line=number)
        if unknown := [name for name in present if name not in TRAINED]:
            raise DataError(
                f"{unknown[0]!r} is not a category that can be taught",
                path=path,
                line=number,
                hint=f"Categories: {', '.join(TRAINED)}.",
            )
        yield Example(text, means(*present, absent=TRAINED), "labelled_here", split_of(text), weight)


def without_repeats(examples: Iterable[Example]) -> list[Example]:
    """Of texts that occur more than once, the first."""
    first: dict[str, Example] = {}
    for example in examples:
        first.setdefault(example.text.casefold(), example)
    return list(first.values())
