"""A snapshot's folder as dialogues and comparisons again."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from tutelage.dialogue import ROLES, Comparison, Dialogue, Message, Preference
from tutelage.errors import DataError, Sentence

Item = TypeVar("Item")
_GROUP = re.compile(r"([0-9a-f]{32})?")
_HINT = "Train without naming a snapshot: a new one is made."


def read_demonstrations(path: Path | str) -> Iterator[Dialogue]:
    """The demonstrations of a snapshot's folder. Raises DataError as all readers here: see `_read`."""
    return _read(Path(path), "demonstrations", _dialogue)


def read_comparisons(path: Path | str) -> Iterator[Comparison]:
    """The comparisons of a snapshot's folder, each with the weight of its author."""
    weights = read_reliability(path)
    comparisons = _read(Path(path), "comparisons", _comparison)
    return (replace(each, weight=weights.get(each.author or "", 1.0)) for each in comparisons)


def read_prompts(path: Path | str) -> Iterator[Dialogue]:
    """The prompts of a snapshot's folder; each ends with a user's message."""
    return _read(Path(path), "prompts", _dialogue)


def read_counts(path: Path | str) -> dict[str, dict[str, int]]:
    """How many rows of each stream came from each source: {stream: {source: rows}}."""
    counts: dict[str, dict[str, int]] = _manifest_entry(Path(path) / "manifest.json", "counts")
    return counts


def read_reliability(path: Path | str) -> dict[str, float]:
    """How much each annotator's comparisons should count, 1 on average; whoever is not in it counts as 1."""
    manifest = Path(path) / "manifest.json"
    weights: dict[str, float] = _manifest_entry(manifest).get("reliability", {})
    return weights


def _read(folder: Path, name: str, parse: Callable[[Any], Item]) -> Iterator[Item]:
    """The manifest is checked at once; lines are read as they are asked for.

    Raises DataError with file and line for a line that cannot be read, and at the end when the file is not
    the one that was written.
    """
    file = folder / f"{name}.jsonl"
    return _items(file, _digest(folder / "manifest.json", file.name), parse)


def _digest(manifest: Path, name: str) -> str:
    return str(_manifest_entry(manifest, "files", name))


def _manifest_entry(manifest: Path, *keys: str) -> Any:
    try:
        entry = json.loads(manifest.read_text(encoding="utf-8"))
        for key in keys:
            entry = entry[key]
        return entry
    except FileNotFoundError:
        raise DataError("This is not a snapshot: it has no manifest.", path=manifest, hint=_HINT) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise DataError(
            Sentence("The manifest is broken: {error}.", error=error), path=manifest, hint=_HINT
        ) from error


def _items(file: Path, expected: str, parse: Callable[[Any], Item]) -> Iterator[Item]:
    digest = hashlib.sha256()
    try:
        with file.open("rb") as stream:
            for number, line in enumerate(stream, 1):
                digest.update(line)
                yield _item(line, parse, file, number)
    except OSError as error:
        raise DataError(
            Sentence("The file cannot be read: {error}.", error=error.strerror), path=file, hint=_HINT
        ) from error
    if digest.hexdigest() != expected:
        raise DataError("The file was changed after it was written.", path=file, hint=_HINT)


def _item(line: bytes, parse: Callable[[Any], Item], file: Path, number: int) -> Item:
    try:
        return parse(json.loads(line))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        message = Sentence("This line is not what it should be: {error}.", error=error)
        raise DataError(message, path=file, line=number, hint=_HINT) from error


def _dialogue(fields: Any) -> Dialogue:
    return Dialogue(
        _messages(fields["messages"]), fields["id"], fields["source"], fields["author"], _group(fields)
    )


def _comparison(fields: Any) -> Comparison:
    candidates = tuple(_text(candidate) for candidate in fields["candidates"])
    preferences = tuple(Preference(**preference) for preference in fields["preferences"])
    if any(not 0 <= index < len(candidates) for pair in preferences for index in (pair.better, pair.worse)):
        raise ValueError("a preference names a candidate that is not there")
    prompt = _messages(fields["prompt"])
    return Comparison(
        prompt,
        candidates,
        preferences,
        fields["id"],
        fields["source"],
        fields["author"],
        group=_group(fields),
    )


def _group(fields: Any) -> str:
    """Snapshots of earlier days have none."""
    group = _text(fields.get("group", ""))
    if not _GROUP.fullmatch(group):
        raise ValueError("its group is none that data is split by")
    return group


def _messages(rows: Any) -> tuple[Message, ...]:
    if not rows or any(row["role"] not in ROLES for row in rows):
        raise ValueError("a message has no known role")
    return tuple(Message(row["role"], _text(row["content"])) for row in rows)


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("a text is missing")
    return value
