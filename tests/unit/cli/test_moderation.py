from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner, Result

from tutelage.cli import moderation
from tutelage.errors import ConfigError, DataError, InvalidRequest
from tutelage.moderation.categories import CATEGORIES

HARSH = "you are a worthless piece of garbage"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TUTELAGE_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def run(*arguments: str, input: str | bytes | None = None) -> Result:
    app = typer.Typer()
    moderation.register(app)
    return CliRunner().invoke(app, list(arguments), input=input)


def answers(result: Result) -> list[dict[str, object]]:
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_each_line_is_answered_in_order() -> None:
    result = run(
        "moderate", input="".join(json.dumps({"text": text}) + "\n" for text in ("hello", HARSH, "你好"))
    )
    assert result.exit_code == 0
    assert [answer["flagged"] for answer in answers(result)] == [False, True, False]
    for answer in answers(result):
        assert set(answer) == {"flagged", "scores"}
        assert set(answer["scores"]) == set(CATEGORIES)


@pytest.mark.parametrize("bad", ["not json", '{"text": 3}', '"text"', "{}", "[" * 100_000, b"\xff\xfe"])
def test_a_line_that_cannot_be_read_is_answered_with_an_error_and_the_rest_goes_on(bad: str | bytes) -> None:
    line = bad if isinstance(bad, bytes) else bad.encode()
    good = json.dumps({"text": "hello"}).encode()
    result = run("moderate", input=good + b"\n\n" + line + b"\n" + good)
    first, second, third = answers(result)
    assert result.exit_code == 1
    assert (first["flagged"], third["flagged"]) == (False, False)
    assert set(second) == {"error"}
    assert second["error"]["line"] == 3
    assert second["error"]["message"]


def test_no_line_no_answer() -> None:
    result = run("moderate", input="\n")
    assert (result.exit_code, result.stdout) == (0, "")


def test_a_text_that_is_only_half_a_character_is_judged() -> None:
    assert answers(run("moderate", input='{"text": "\\ud800"}'))[0]["flagged"] is False


def test_many_lines_across_the_edges_of_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation, "_READ_AT_ONCE", 7)
    result = run("moderate", input="".join(f'{{"text": "line {n}"}}\n' for n in range(30)) + "oops")
    assert len(answers(result)) == 31
    assert answers(result)[-1]["error"]["line"] == 31


@contextmanager
def piped() -> Iterator[subprocess.Popen[str]]:
    """The command in a process of its own, whose output is buffered as it is in any pipe."""
    code = "import typer; from tutelage.cli import moderation; app = typer.Typer(); moderation.register(app); app()"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    with subprocess.Popen(
        [sys.executable, "-c", code, "moderate"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
    ) as process:
        yield process


def test_an_answer_comes_before_the_next_line_is_sent() -> None:
    with piped() as process:
        assert process.stdin
        assert process.stdout
        for text in ("hello", HARSH):
            process.stdin.write(json.dumps({"text": text}) + "\n")
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["flagged"] is (text == HARSH)
        process.stdin.close()
        assert process.wait(timeout=30) == 0


def test_a_reader_who_leaves_is_no_error_to_speak_of() -> None:
    with piped() as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stdin.write('{"text": "hello"}\n')
        process.stdin.close()
        assert process.wait(timeout=30) == 1
        assert process.stderr.read() == ""


def test_people_give_texts_as_arguments() -> None:
    result = run("moderate", HARSH, "hello")
    assert "harassment" in result.stdout
    assert result.stdout.endswith("ok\n")


def test_machines_may_ask_for_one_object() -> None:
    result = run("moderate", "--json", HARSH, "hello")
    first, second = json.loads(result.stdout)["results"]
    assert first["state"] in ("warned", "blocked")
    assert second["state"] == "ok"


def test_help_is_shown_to_who_may_hurt_themselves() -> None:
    assert "findahelpline.com" in run("moderate", "I want to kill myself").stdout


def test_another_policy_can_be_named(tmp_path: Path) -> None:
    from tutelage.moderation.policy import DEFAULT_POLICY

    path = tmp_path / "strict.toml"
    path.write_text(
        DEFAULT_POLICY.read_text(encoding="utf-8").replace("warn = 0.6,", "warn = 0.0,"), encoding="utf-8"
    )
    assert answers(run("moderate", "--policy", str(path), input='{"text": "hello"}'))[0]["flagged"] is True
    assert isinstance(run("moderate", "--policy", str(tmp_path / "none.toml"), "x").exception, ConfigError)


def test_without_text_in_a_terminal_there_is_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(moderation.sys, "stdin", type("Terminal", (), {"isatty": lambda self: True})())
    with pytest.raises(InvalidRequest):
        moderation.moderate()


def test_training_asks_for_the_reports_folder_before_it_begins(tmp_path: Path) -> None:
    result = run("train-filter", "--data", str(tmp_path), "--report", str(tmp_path / "none" / "report.json"))
    assert isinstance(result.exception, ConfigError)


def test_training_without_data_is_an_error_that_names_the_set(tmp_path: Path, home: Path) -> None:
    result = run("train-filter", "--data", str(tmp_path))
    assert isinstance(result.exception, DataError)
    assert "davidson" in str(result.exception)
    assert not (home / "filter.npz").exists()
