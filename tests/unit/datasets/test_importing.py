"""Imports are whole, counted and repeatable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tutelage.datasets import formats
from tutelage.datasets.importing import load, told
from tutelage.datasets.sources import Found, Problem, Skipped, messages, ranked, read
from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.errors import DataError
from tutelage.store import Store, export

ASK, REPLY = Message("user", "Tea?"), Message("assistant", "Yes.")
DEMONSTRATION = Dialogue((ASK, REPLY), source="kitchen")
PROMPT = Dialogue((ASK, Message("assistant", "No."), Message("user", "Cake?")), source="kitchen")
COMPARISON = Comparison.from_ranking([ASK], ["a", "b", "c"], [[2], [0, 1]], source="kitchen", author="me")
PROBLEM = Problem(Path("rows.jsonl"), 7, "message 1 is empty")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "tutelage.db")
    yield store
    store.close()


def kept(store: Store) -> tuple[list[Dialogue], list[Comparison]]:
    with store.read() as tx:
        return list(export.demonstrations(tx)), list(export.comparisons(tx))


def test_everything_is_stored_and_counted(store: Store) -> None:
    found: list[Found] = [DEMONSTRATION, Skipped("cut"), PROMPT, COMPARISON, PROBLEM, Skipped("cut", 3)]
    report = load(store, found)
    assert (report.demonstrations, report.prompts, report.comparisons) == (1, 1, 1)
    assert (report.pairs, report.ties, report.messages) == (2, 1, 2 + 3 + 4)
    assert (report.skipped, report.problems, report.already_there) == ({"cut": 4}, [PROBLEM], 0)
    (demonstrations, comparisons) = kept(store)
    assert [(one.messages, one.source) for one in demonstrations] == [((ASK, REPLY), "kitchen")]
    assert [(one.preferences, one.author) for one in comparisons] == [(COMPARISON.preferences, "me")]
    with store.read() as tx:
        assert {one.messages for one in export.prompts(tx)} == {(ASK,), PROMPT.messages}


def test_a_second_import_adds_nothing(store: Store) -> None:
    load(store, [DEMONSTRATION, COMPARISON])
    before = kept(store)
    report = load(store, [DEMONSTRATION, PROMPT, COMPARISON])
    assert (report.demonstrations, report.comparisons, report.prompts) == (0, 0, 1)
    assert (report.already_there, report.messages) == (2, 3)
    assert kept(store) == before


def test_strict_imports_nothing_when_a_row_is_bad(store: Store) -> None:
    other = Problem(Path("rows.jsonl"), 9, "there is no instruction")
    with pytest.raises(DataError) as caught:
        load(store, [DEMONSTRATION, PROBLEM, other, *[PROBLEM] * 1200], strict=True)
    assert caught.value.where == "rows.jsonl:7"
    assert caught.value.message.splitlines() == [
        "message 1 is empty (1,201 rows)",
        "  rows.jsonl:9: there is no instruction",
    ]
    assert "--strict" in caught.value.hint
    assert kept(store) == ([], [])


@pytest.mark.parametrize(
    ("row", "way_out"),
    [
        ('{"instruction": "Tea?", "output": "Yes."}', "`tutelage import alpaca` reads such rows."),
        ('{"question": "Tea?"}', "`tutelage import --help` names the forms that are read."),
    ],
)
def test_a_file_of_bad_rows_alone_is_an_error(store: Store, tmp_path: Path, row: str, way_out: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(row)
    problem = Problem(path, 1, "message 1 is empty")
    with pytest.raises(DataError) as caught:
        load(store, [problem])
    hint = f"hint: Nothing was imported. {way_out}"
    assert str(caught.value) == f"{path}:1: message 1 is empty\n{hint}"
    assert load(store, [problem, Skipped("cut")]).problems == [problem]


def test_many_reasons_are_told_as_far_as_they_can_be_read() -> None:
    problems = [Problem(Path("rows.jsonl"), line, f"reason {line}") for line in range(1, 14)]
    first, *_, last = told(problems)
    assert first == "rows.jsonl:1: reason 1"
    assert last == "… and 3 other reasons (--json tells every row)"
    assert len(told(problems)) == 11


def test_an_import_that_breaks_off_leaves_nothing(store: Store) -> None:
    unsound = Dialogue((REPLY,), source="kitchen")
    with pytest.raises(Exception, match="should be the user's"):
        load(store, [DEMONSTRATION, COMPARISON, unsound])
    assert kept(store) == ([], [])


def test_an_export_imported_again_is_there_already(store: Store, tmp_path: Path) -> None:
    load(store, [DEMONSTRATION, COMPARISON])
    demonstrations, comparisons = kept(store)
    formats.write((row for one in demonstrations for row in formats.messages(one)), tmp_path / "d.jsonl")
    formats.write((row for one in comparisons for row in formats.ranked(one)), tmp_path / "c.jsonl")
    for name, parse in (("d", messages.parse), ("c", ranked.parse)):
        found = read(tmp_path / f"{name}.jsonl", parse, source="", default_source="elsewhere")
        assert load(store, found).already_there == 1
