"""Exporters: dialogues and comparisons as the JSON rows that other programs, and our own importers, read."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, TextIO

from tutelage.dialogue import Comparison, Dialogue, Message, Preference
from tutelage.errors import DataError, NotFound

Row = dict[str, Any]


def messages(dialogue: Dialogue) -> Iterator[Row]:
    """OpenAI's form for fine-tuning, with the source beside it."""
    yield {"messages": _messages(dialogue.messages)} | _origin(source=dialogue.source)


def prompt(dialogue: Dialogue) -> Iterator[Row]:
    """TRL's form for prompts alone, with the source beside it."""
    yield {"prompt": _messages(dialogue.messages)} | _origin(source=dialogue.source)


def ranked(comparison: Comparison) -> Iterator[Row]:
    """All of a comparison but its id; judgements that a ranking implies are given as a ranking."""
    groups = ranking(comparison)
    judged = (
        {"ranking": groups} if groups else {"preferences": [_preference(p) for p in comparison.preferences]}
    )
    row = {"prompt": _messages(comparison.prompt), "candidates": list(comparison.candidates)} | judged
    yield row | _origin(source=comparison.source, author=comparison.author)


def pairs(comparison: Comparison) -> Iterator[Row]:
    """A row a judged pair, as TRL and OpenRLHF take them. This form has no ties: they are left out."""
    for preference in comparison.preferences:
        if not preference.tie:
            yield {
                "prompt": _messages(comparison.prompt),
                "chosen": _reply(comparison.candidates[preference.better]),
                "rejected": _reply(comparison.candidates[preference.worse]),
            }


def kto(comparison: Comparison) -> Iterator[Row]:
    """A row a candidate, for KTO: good when it won more pairs than it lost, bad when fewer, else left out."""
    balance = [0] * len(comparison.candidates)
    for preference in comparison.preferences:
        if not preference.tie:
            balance[preference.better] += 1
            balance[preference.worse] -= 1
    for candidate, wins in zip(comparison.candidates, balance, strict=True):
        if wins:
            prompt = _messages(comparison.prompt)
            yield {"prompt": prompt, "completion": _reply(candidate), "label": wins > 0}


COMPARISONS: dict[str, Callable[[Comparison], Iterator[Row]]] = {"ranked": ranked, "pairs": pairs, "kto": kto}


def write(rows: Iterable[Row], path: Path) -> int:
    """Write rows as JSONL and return how many there were. The file appears whole or not at all.

    The path `-` is standard output. Raises NotFound when there are no rows, DataError when the file cannot be
    written.
    """
    if str(path) == "-":
        return _write(rows, sys.stdout)
    try:
        return _write_whole(rows, path)
    except OSError as error:
        hint = "Name a file in a folder that exists and that you can write to."
        raise DataError(f"cannot be written: {error.strerror}", path=path, hint=hint) from error


def _write_whole(rows: Iterable[Row], path: Path) -> int:
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    partial = Path(name)
    try:
        with open(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            count = _write(rows, stream)
            stream.flush()
            os.fsync(stream.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    return count


def _write(rows: Iterable[Row], stream: TextIO) -> int:
    count = 0
    for count, row in enumerate(rows, start=1):  # noqa: B007
        stream.write(json.dumps(row, ensure_ascii=False) + "\n")
    if not count:
        raise NotFound("there is nothing to export", hint="`tutelage import --help` brings data in.")
    return count


def _messages(turns: Sequence[Message]) -> list[Row]:
    return [{"role": message.role, "content": message.content} for message in turns]


def _reply(text: str) -> list[Row]:
    return [{"role": "assistant", "content": text}]


def _origin(**fields: str | None) -> Row:
    return {name: value for name, value in fields.items() if value}


def _preference(preference: Preference) -> Row:
    row: Row = {"better": preference.better, "worse": preference.worse, "gap": preference.gap}
    return row | {"tie": True} if preference.tie else row


def ranking(comparison: Comparison) -> list[list[int]] | None:
    """The groups, best first, from which exactly these preferences follow, or None where there are none."""
    rank: dict[int, int] = {}
    for preference in comparison.preferences:
        for index, gap in ((preference.better, 0), (preference.worse, preference.gap)):
            rank[index] = max(rank.get(index, 0), gap)
    ordered = sorted(rank, key=lambda index: (rank[index], index))
    groups = [list(group) for _, group in groupby(ordered, key=lambda index: rank[index])]
    same = Comparison.from_ranking(comparison.prompt, comparison.candidates, groups)
    return groups if same.preferences == comparison.preferences else None
