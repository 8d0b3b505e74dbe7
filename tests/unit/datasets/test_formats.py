"""Exports in the forms of others, and that our own form loses nothing."""

from __future__ import annotations

import json
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.datasets import formats
from tutelage.datasets.sources import messages, ranked
from tutelage.dialogue import Comparison, Dialogue, Message, Preference
from tutelage.errors import DataError, NotFound

PROMPT = (Message("system", "Be kind."), Message("user", "Tea?"))
PROMPT_ROWS = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Tea?"}]
RANKING = Comparison.from_ranking(PROMPT, ["a", "b", "c", "d"], [[2], [0, 3]], source="kitchen", author="me")

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
said = texts.filter(lambda text: bool(text.strip()))


@st.composite
def dialogues(draw: st.DrawFn, *, last: str | None = None) -> tuple[Message, ...]:
    count = draw(st.integers(1, 5))
    if last == "user":
        count += count % 2 == 0
    turns = [Message("assistant" if index % 2 else "user", draw(said)) for index in range(count)]
    system = [Message("system", draw(said))] if draw(st.booleans()) else []
    return (*system, *turns)


@st.composite
def comparisons(draw: st.DrawFn) -> Comparison:
    prompt = draw(dialogues(last="user"))
    candidates = draw(st.lists(texts, min_size=2, max_size=5, unique=True))
    order = draw(st.permutations(range(len(candidates))))
    origin = {"source": draw(texts), "author": draw(st.none() | said)}
    if draw(st.booleans()):
        cut = draw(st.integers(1, len(order) - 1))
        return Comparison.from_ranking(prompt, candidates, [order[:cut], order[cut:]], **origin)
    pair = st.permutations(range(len(candidates))).map(lambda indices: indices[:2])
    judged = draw(st.lists(st.tuples(pair, st.booleans(), st.integers(0, 4)), min_size=1, max_size=6))
    preferences = tuple(Preference(*indices, tie, gap) for indices, tie, gap in judged)
    return Comparison(prompt, tuple(candidates), preferences, **origin)


def through_json(row: dict[str, Any]) -> Any:
    return json.loads(json.dumps(row, ensure_ascii=False))


@given(comparisons())
def test_a_ranked_export_read_back_is_the_same(comparison: Comparison) -> None:
    (row,) = formats.ranked(comparison)
    assert list(ranked.parse(through_json(row))) == [comparison]


@given(dialogues(), texts)
def test_a_messages_export_read_back_is_the_same(turns: tuple[Message, ...], source: str) -> None:
    dialogue = Dialogue(turns, source=source)
    (row,) = formats.messages(dialogue)
    assert list(messages.parse(through_json(row))) == [dialogue]


@given(comparisons())
def test_exported_pairs_read_back_are_the_judged_pairs(comparison: Comparison) -> None:
    found = [item for row in formats.pairs(comparison) for item in ranked.parse(through_json(row))]
    strict = [preference for preference in comparison.preferences if not preference.tie]
    pairs = [(comparison.candidates[p.better], comparison.candidates[p.worse]) for p in strict]
    assert [item.candidates for item in found if isinstance(item, Comparison)] == pairs


def test_messages_are_openais() -> None:
    dialogue = Dialogue((*PROMPT, Message("assistant", "Yes.")), id="1", source="chat", author="me")
    assert list(formats.messages(dialogue)) == [
        {"messages": [*PROMPT_ROWS, {"role": "assistant", "content": "Yes."}], "source": "chat"}
    ]


@given(dialogues(last="user"), texts)
def test_a_prompt_read_back_is_the_same(turns: tuple[Message, ...], source: str) -> None:
    dialogue = Dialogue(turns, source=source)
    (row,) = formats.prompt(dialogue)
    assert list(messages.parse(through_json(row))) == [dialogue]


def test_a_ranking_is_written_as_one() -> None:
    (row,) = formats.ranked(RANKING)
    assert row == {
        "prompt": PROMPT_ROWS,
        "candidates": ["a", "b", "c", "d"],
        "ranking": [[2], [0, 3]],
        "source": "kitchen",
        "author": "me",
    }


def test_judgements_that_no_ranking_says_are_written_pair_by_pair() -> None:
    circle = (Preference(0, 1), Preference(1, 2), Preference(2, 0), Preference(0, 3, tie=True, gap=0))
    (row,) = formats.ranked(replace(RANKING, preferences=circle))
    assert "ranking" not in row
    assert row["preferences"] == [
        {"better": 0, "worse": 1, "gap": 1},
        {"better": 1, "worse": 2, "gap": 1},
        {"better": 2, "worse": 0, "gap": 1},
        {"better": 0, "worse": 3, "gap": 0, "tie": True},
    ]


def test_pairs_are_message_lists_and_leave_ties_out() -> None:
    chosen, first, second = ([{"role": "assistant", "content": text}] for text in "cad")
    assert list(formats.pairs(RANKING)) == [
        {"prompt": PROMPT_ROWS, "chosen": chosen, "rejected": first},
        {"prompt": PROMPT_ROWS, "chosen": chosen, "rejected": second},
    ]


def test_kto_labels_who_won_more_than_it_lost() -> None:
    ranking = Comparison.from_ranking(PROMPT, ["best", "middle", "worst", "unranked"], [[0], [1], [2]])
    labels = {row["completion"][0]["content"]: row["label"] for row in formats.kto(ranking)}
    assert labels == {"best": True, "worst": False}


def test_rows_are_written_a_line_each_and_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    assert formats.write([{"a": "é\n"}, {"b": 2}], path) == 2
    assert path.read_text(encoding="utf-8") == '{"a": "é\\n"}\n{"b": 2}\n'
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_failing_export_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"
    path.write_text("old")

    def rows() -> Any:
        yield {"a": 1}
        raise DataError("broken")

    with pytest.raises(DataError, match="broken"):
        formats.write(rows(), path)
    with pytest.raises(NotFound, match="nothing to export"):
        formats.write([], path)
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("out.jsonl", "old")]


def test_standard_output_is_a_dash(capsys: pytest.CaptureFixture[str]) -> None:
    assert formats.write([{"a": 1}], Path("-")) == 1
    assert capsys.readouterr().out == '{"a": 1}\n'


def test_a_folder_that_is_not_there_is_an_error_with_a_hint(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be written: No such file") as caught:
        formats.write([{"a": 1}], tmp_path / "none" / "out.jsonl")
    assert caught.value.hint
