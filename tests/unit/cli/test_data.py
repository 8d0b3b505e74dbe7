"""`tutelage import` and `tutelage export` from the command line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tutelage.cli import data
from tutelage.datasets import formats
from tutelage.datasets.sources import PARSERS
from tutelage.errors import DataError, NotFound

TURNS = [{"role": "user", "content": "Tea?"}, {"role": "assistant", "content": "Yes."}]
TREE = {
    "text": "Tea?",
    "role": "prompter",
    "lang": "en",
    "replies": [
        {"text": "Yes.", "role": "assistant", "lang": "en", "rank": 0},
        {"text": "No.", "role": "assistant", "lang": "en", "rank": 1},
        {"text": "Beep.", "role": "assistant", "lang": "en", "rank": 2, "synthetic": True},
    ],
}
ROWS: dict[str, Any] = {
    "messages": {"messages": TURNS},
    "alpaca": {"instruction": "Tea?", "output": "Yes."},
    "oasst": {"prompt": TREE},
    "hh": {"chosen": "\n\nHuman: Tea?\n\nAssistant: Yes.", "rejected": "\n\nHuman: Tea?\n\nAssistant: No."},
    "ranked": {"prompt": "Tea?", "candidates": ["Yes.", "No."], "ranking": [[0], [1]]},
}


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str | Path) -> str:
    """The standard output of a command; its error is raised."""
    app = typer.Typer()
    data.register(app)
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def numbers(*arguments: str | Path) -> dict[str, Any]:
    return dict(json.loads(run(*arguments, "--json")))


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def rows_file(tmp_path: Path) -> Path:
    return write(tmp_path / "rows[1].jsonl", ROWS["messages"], {"messages": 3}, *[{}] * 12)


@pytest.mark.parametrize(
    ("form", "demonstrations", "pairs"),
    [("messages", 1, 0), ("alpaca", 1, 0), ("oasst", 1, 1), ("hh", 0, 1), ("ranked", 0, 1)],
)
def test_each_form_is_imported_once(tmp_path: Path, form: str, demonstrations: int, pairs: int) -> None:
    path = write(tmp_path / "rows.jsonl", ROWS[form])
    first, again = numbers("import", form, path), numbers("import", form, path)
    assert (first["demonstrations"], first["pairs"], first["already_there"]) == (demonstrations, pairs, 0)
    assert (again["demonstrations"], again["pairs"]) == (0, 0)
    assert again["already_there"] == demonstrations + pairs
    renamed = numbers("import", form, path, "--source", "other")
    assert (renamed["demonstrations"], renamed["pairs"]) == (demonstrations, pairs)


def test_the_json_holds_every_number_and_every_problem(rows_file: Path) -> None:
    result = numbers("import", "messages", rows_file)
    problems = result.pop("problems")
    assert result == {
        "format": "messages",
        "path": str(rows_file),
        "demonstrations": 1,
        "prompts": 0,
        "comparisons": 0,
        "pairs": 0,
        "ties": 0,
        "messages": 2,
        "already_there": 0,
        "skipped": {},
        "bad": 13,
    }
    assert len(problems) == 13
    assert problems[0] == {
        "file": str(rows_file),
        "line": 2,
        "reason": "messages should be a list, not a number",
    }


def test_the_text_tells_each_reason_once_with_its_first_place(rows_file: Path) -> None:
    lines = run("import", "messages", rows_file).splitlines()
    assert ["demonstrations", "1"] in [line.split() for line in lines]
    assert ["bad", "rows", "13"] in [line.split() for line in lines]
    assert lines[-2:] == [
        f"  {rows_file}:2: messages should be a list, not a number",
        f'  {rows_file}:3: there is no "messages", "conversations" or "prompt" (12 rows)',
    ]


def test_what_was_left_out_is_shown_with_its_reason(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", *[ROWS["alpaca"]] * 3)
    lines = [line.split(maxsplit=1) for line in run("import", "alpaca", path).splitlines()]
    assert ["2", "the same as one before it"] in lines


def test_strict_refuses_and_leaves_the_store_empty(rows_file: Path) -> None:
    with pytest.raises(DataError):
        run("import", "messages", rows_file, "--strict")
    assert numbers("import", "messages", rows_file)["already_there"] == 0


def test_trees_by_language_and_with_or_without_models(tmp_path: Path) -> None:
    path = write(tmp_path / "trees.jsonl", ROWS["oasst"])
    assert numbers("import", "oasst", path, "--lang", "es")["skipped"] == {
        "messages in another language and the replies below them": 4
    }
    assert numbers("import", "oasst", path, "--lang", "es", "--lang", "en")["pairs"] == 1
    assert numbers("import", "oasst", path, "--synthetic")["pairs"] == 3


def test_demonstrations_come_out_as_they_went_in(tmp_path: Path) -> None:
    run("import", "messages", write(tmp_path / "in.jsonl", ROWS["messages"]))
    out = tmp_path / "out.jsonl"
    result = numbers("export", "demonstrations", out)
    assert result == {"what": "demonstrations", "format": "messages", "path": str(out), "rows": 1}
    assert json.loads(out.read_text()) == {"messages": TURNS, "source": "messages"}
    assert run("export", "demonstrations", "-") == out.read_text()


@pytest.mark.parametrize(
    ("form", "rows", "keys"),
    [
        ("ranked", 1, {"prompt", "candidates", "ranking", "source"}),
        ("pairs", 3, {"prompt", "chosen", "rejected"}),
        ("kto", 2, {"prompt", "completion", "label"}),
    ],
)
def test_comparisons_come_out_in_each_form(tmp_path: Path, form: str, rows: int, keys: set[str]) -> None:
    run("import", "oasst", write(tmp_path / "in.jsonl", ROWS["oasst"]), "--synthetic")
    lines = run("export", "comparisons", "-", "--format", form).splitlines()
    assert len(lines) == rows
    assert set(json.loads(lines[0])) == keys


def test_the_forms_on_offer_are_those_that_exist() -> None:
    assert [form.value for form in data.ComparisonFormat] == list(formats.COMPARISONS)
    assert list(data.IMPORTERS) == list(PARSERS)


def test_prompts_go_out_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    further = [*TURNS, {"role": "user", "content": "Cake?"}]
    run("import", "messages", write(tmp_path / "in.jsonl", {"prompt": further}, {"messages": TURNS}))
    out = tmp_path / "prompts.jsonl"
    result = numbers("export", "prompts", out)
    assert (result["what"], result["rows"]) == ("prompts", 2)
    assert json.loads(out.read_text().splitlines()[0]) == {"prompt": TURNS[:1], "source": "messages"}
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "other"))
    assert numbers("import", "messages", out, "--strict")["prompts"] == 2


def test_an_export_can_be_limited_to_sources(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        path = write(tmp_path / "in.jsonl", {"messages": [{"role": "user", "content": name}, TURNS[1]]})
        run("import", "messages", path, "--source", name)
    lines = run("export", "demonstrations", "-", "--source", "one", "--source", "three").splitlines()
    assert [json.loads(line)["source"] for line in lines] == ["one", "three"]


@pytest.mark.parametrize("what", ["demonstrations", "prompts", "trees"])
def test_a_source_that_nothing_came_from_is_an_error_that_names_the_others(tmp_path: Path, what: str) -> None:
    run("import", "messages", write(tmp_path / "in.jsonl", ROWS["messages"]), "--source", "kitchen")
    with pytest.raises(NotFound, match="nothing came from 'kitchn'\nhint: sources: kitchen"):
        run("export", what, tmp_path / "out.jsonl", "--source", "kitchen", "--source", "kitchn")
    assert not (tmp_path / "out.jsonl").exists()


def test_trees_go_out_and_come_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    system = {"role": "system", "content": "Rhyme."}
    run(
        "import",
        "messages",
        write(tmp_path / "in.jsonl", {"messages": TURNS}, {"messages": [system, *TURNS]}),
    )
    ranked = {"prompt": "Rhyme with tea.", "candidates": ["sea", "coffee"], "ranking": [[0], [1]]}
    run("import", "ranked", write(tmp_path / "ranked.jsonl", ranked))
    out = tmp_path / "trees.jsonl"
    result = numbers("export", "trees", out)
    assert (result["rows"], sum(result["left_out"].values())) == (2, 2)
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "other"))
    back = numbers("import", "oasst", out, "--strict")
    assert (back["demonstrations"], back["comparisons"], back["bad"]) == (2, 1, 0)


def test_nothing_to_export_is_an_error_and_writes_no_file(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing to export"):
        run("export", "comparisons", tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()
