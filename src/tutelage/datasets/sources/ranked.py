"""Judged answers in four shapes: our own export, pairs, best-first lists, pairwise judgements with passages.

Pairwise judgements are kept pair by pair, as they were made: people contradict themselves, and a ranking
could not say so.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import combinations

from tutelage.datasets.sources import alpaca, fields
from tutelage.datasets.sources.found import Item, Row, Skipped
from tutelage.dialogue import Comparison, Message, Preference
from tutelage.errors import DataError


def parse(row: Row) -> Iterator[Item | Skipped]:
    """One comparison a row, whichever of the four shapes it has."""
    if "candidates" in row:
        comparison = _own(row)
    elif "preferred_output" in row:
        comparison = _pair(_openai(row))
    elif "chosen" in row and "rejected" in row:
        comparison = _pair(row)
    elif "prediction 1" in row:
        comparison = _with_passages(row)
    elif isinstance(row.get("output"), list):
        answers = [fields.text(answer, "an answer in output").strip() for answer in row["output"]]
        comparison = _ranking(alpaca.prompt(row), answers, [[index] for index in range(len(answers))])
    else:
        raise DataError(
            'there is no "candidates", no "chosen" and "rejected", no "prediction 1", and no list in "output"'
        )
    texts = comparison.candidates
    if not comparison.preferences:
        yield Skipped("no pair of answers was judged")
    elif all(texts[pair.better] == texts[pair.worse] for pair in comparison.preferences):
        yield Skipped("the answers are the same")
    else:
        yield comparison


def _ranking(prompt: tuple[Message, ...], candidates: list[str], groups: list[list[int]]) -> Comparison:
    try:
        return Comparison.from_ranking(prompt, candidates, groups)
    except ValueError as error:
        raise DataError(str(error)) from error


def _own(row: Row) -> Comparison:
    prompt = fields.prompt(row["prompt"] if "prompt" in row else row.get("messages"))
    candidates = [fields.text(text, "a candidate") for text in fields.items(row["candidates"], "candidates")]
    if "preferences" in row:
        judged = fields.items(row["preferences"], "preferences")
        preferences = tuple(_preference(entry, len(candidates)) for entry in judged)
        comparison = Comparison(prompt, tuple(candidates), preferences)
    else:
        comparison = _ranking(prompt, candidates, _groups(row.get("ranking")))
    source, author = (fields.optional_text(row.get(name), name) for name in ("source", "author"))
    return replace(comparison, source=source, author=author or None)


def _groups(value: object) -> list[list[int]]:
    groups = [fields.items(group, "a group in ranking") for group in fields.items(value, "ranking")]
    return [[_index(index, "ranking") for index in group] for group in groups]


def _index(value: object, name: str) -> int:
    if type(value) is not int:
        raise DataError(f"{name} should hold whole numbers, not {fields.kind(value)}")
    return value


def _preference(value: object, candidates: int) -> Preference:
    if not isinstance(value, dict):
        raise DataError(f"a preference should be an object, not {fields.kind(value)}")
    better, worse = (_index(value.get(name), name) for name in ("better", "worse"))
    tie = value.get("tie", False)
    gap = _index(value.get("gap", 0 if tie else 1), "gap")
    if better == worse or not (0 <= better < candidates and 0 <= worse < candidates):
        raise DataError(f"a preference names two of {candidates} candidates, not {better} and {worse}")
    if not isinstance(tie, bool) or gap < 0:
        raise DataError("a preference has a tie that is not true or false, or a negative gap")
    return Preference(better, worse, tie, gap)


def _openai(row: Row) -> Row:
    """OpenAI's form for preference tuning, as the pair that it is."""
    asked = row.get("input")
    prompt = asked.get("messages") if isinstance(asked, dict) else asked
    return {
        "prompt": prompt,
        "chosen": row["preferred_output"],
        "rejected": row.get("non_preferred_output"),
    }


def _pair(row: Row) -> Comparison:
    """Pairs as others write them: the two may be texts, the last message, or the whole dialogue."""
    prompt = _asked(row)
    answers = [_answer(row[name], name, prompt) for name in ("chosen", "rejected")]
    return _ranking(prompt, answers, [[0], [1]])


def _asked(row: Row) -> tuple[Message, ...]:
    """What a pair answers: a prompt or the messages before it, an instruction, or what both sides begin with."""
    for name in ("prompt", "conversations"):
        if row.get(name) is not None:
            return fields.prompt(row[name], name, system=row.get("system"))
    return alpaca.prompt(row) if "instruction" in row else _shared(row)


def _shared(row: Row) -> tuple[Message, ...]:
    """The messages before the last, where chosen and rejected are whole dialogues."""
    if isinstance(row["chosen"], str):
        raise DataError('there is no "prompt"; transcripts of both sides are read by `tutelage import hh`')
    chosen, rejected = (fields.turns(row[name], name)[:-1] for name in ("chosen", "rejected"))
    if chosen != rejected:
        raise DataError(
            "chosen and rejected part before the last message, so they are not answers to one prompt"
        )
    return fields.prompt(row["chosen"][:-1], "chosen", system=row.get("system"))


def _answer(value: object, name: str, prompt: tuple[Message, ...]) -> str:
    """The reply alone, where the whole dialogue stands with it."""
    if isinstance(value, list) and len(value) > 1:
        if fields.messages(value[:-1], name) not in (prompt, prompt[1:]):
            raise DataError(f"{name} should be one reply of the assistant's, after the prompt or alone")
        value = value[-1:]
    return fields.reply(value, name)


def _with_passages(row: Row) -> Comparison:
    """Four answers to a question, the six pairs judged in order: 1 the first, 2 the second, 0 neither."""
    answers = [
        fields.text(row.get(f"prediction {number}"), f"prediction {number}").strip() for number in range(1, 5)
    ]
    pairs = list(combinations(range(len(answers)), 2))
    verdicts = fields.items(row.get("preference"), "preference")
    if len(verdicts) != len(pairs):
        raise DataError(f"preference should hold {len(pairs)} judgements, not {len(verdicts)}")
    judged = zip(pairs, verdicts, strict=True)
    preferences = tuple(_verdict(verdict, first, second) for (first, second), verdict in judged)
    return Comparison((Message("user", _question(row)),), tuple(answers), preferences)


def _verdict(verdict: object, first: int, second: int) -> Preference:
    if type(verdict) is not int or verdict not in (0, 1, 2):
        raise DataError(f"a judgement in preference should be 0, 1 or 2, not {str(verdict)[:40]!r}")
    if verdict == 0:
        return Preference(first, second, tie=True, gap=0)
    return Preference(first, second) if verdict == 1 else Preference(second, first)


def _question(row: Row) -> str:
    question = fields.text(row.get("question"), "question").strip()
    if not question:
        raise DataError("question is empty")
    passages = [_passage(value, number) for number, value in enumerate(_passages(row), start=1)]
    if not passages:
        return question
    return "\n\n".join(
        ["Use these passages to answer the question below.", *passages, f"Question: {question}"]
    )


def _passages(row: Row) -> list[object]:
    return fields.items(row.get("passages") or [], "passages")


def _passage(value: object, number: int) -> str:
    """A numbered title and the sentences under it; the first may repeat the title on a line of its own."""
    parts = [
        fields.text(part, f"passage {number}").strip() for part in fields.items(value, f"passage {number}")
    ]
    if not parts:
        raise DataError(f"passage {number} is empty")
    title, *sentences = parts
    body = " ".join(sentences).removeprefix(f"{title}\n").strip()
    return f"[{number}] {title}\n{body}".rstrip()
