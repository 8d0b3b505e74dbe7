"""Every text has a translation, errors included, and nothing is translated that no page shows."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field, ValidationError

import tutelage.web
from tutelage import errors
from tutelage.server.errors import failure_of
from tutelage.store.tables import AuditAction
from tutelage.web import catalogue
from tutelage.web.assets import Assets
from tutelage.web.templating import HERE, texts_of_scripts

WEB = Path(tutelage.web.__file__).parent
CALL = re.compile(r"""\bt\(\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')""")
OTHERS = [name for name in catalogue.locales() if name != "en"]

ROOMS = (
    *("errors.py", "dialogue.py", "tokenizer.py", "rendering.py", "registry", "store", "models", "engine"),
    *("training", "moderation", "evaluation", "server", "web", "improvement", "worker.py", "datasets/sft.py"),
)
PROGRAMS = (
    *("server/openai", "server/oidc/settings.py", "engine/scorers.py", "engine/scripted_engine.py"),
    *(
        "store/copying.py",
        "store/imports.py",
        "store/transfer.py",
        "store/restoring.py",
        "registry/folders.py",
    ),
    *(
        "models/exporting.py",
        "models/gguf_writer.py",
        "improvement/comparison.py",
        "improvement/inputs.py",
        "improvement/stages.py",
    ),
    *("training/cluster.py", "training/processes.py", "training/sharding.py", "training/distributed.py"),
    *("training/remote_rollouts.py", "store/migrations"),
    *("moderation/classifier.py", "moderation/corpus.py", "moderation/policy.py", "moderation/training.py"),
)
"""Whose errors no page shows: programs read them, or whoever gives commands."""
KINDS = {
    name for name, kind in inspect.getmembers(errors, inspect.isclass) if kind.__module__ == errors.__name__
} | {"AtCapacity", "StorageFull", "UsedUp", "Failure", "RunStopped"}
BY_OTHERS = {
    "{field}: {problem}",
    "Method Not Allowed",
    "Field required",
    "String should have at least {min_length} characters",
    "String should have at least {min_length} character",
    "String should have at most {max_length} characters",
    "Input should be greater than {gt}",
    "Input should be greater than or equal to {ge}",
    "Input should be less than or equal to {le}",
    "Input should be a valid string",
    "Input should be a valid boolean",
    "Input should be a valid integer",
    "Input should be a valid integer, unable to parse string as an integer",
    "Input should be a valid integer, got a number with a fractional part",
    "Input should be a valid number",
    "Input should be a valid number, unable to parse string as a number",
    "Input should be a finite number",
    "Extra inputs are not permitted",
}
"""What the framework and pydantic say of addresses and fields."""


def shown() -> set[str]:
    """Every text that a template, a page or a script passes to `t`."""
    files = [*WEB.glob("templates/*.html"), *WEB.glob("pages/*.py"), *WEB.glob("*.py")]
    found = {literal[1:-1] for file in files for literal in CALL.findall(file.read_text(encoding="utf-8"))}
    return found | texts_of_scripts(Assets(HERE / "static")) | set(sentences()) | BY_OTHERS


def sentences() -> dict[str, str]:
    """Every sentence and hint of an error that a page may show, with a place where it is made."""
    found: dict[str, str] = {}
    package = WEB.parent
    files = (file for room in ROOMS for file in [*(package / room).rglob("*.py"), package / room])
    for file in sorted(each for each in files if each.suffix == ".py"):
        name = file.relative_to(package).as_posix()
        if not name.startswith(PROGRAMS):
            tree = ast.parse(file.read_text(encoding="utf-8"))
            found |= {text: name for node in said(tree) for text in literals(node, tree, name)}
    return found


def said(tree: ast.Module) -> Iterator[ast.expr]:
    """What is given to errors and to sentences as words."""
    for call in ast.walk(tree):
        if not isinstance(call, ast.Call):
            continue
        kind = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
        if kind in KINDS:
            yield from call.args[1:2] if kind == "Failure" else call.args[:1]
            yield from (each.value for each in call.keywords if each.arg == "hint")


def literals(node: ast.expr, tree: ast.Module, place: str) -> Iterator[str]:
    """The words of an expression. An f-string has none that could be looked up."""
    assert not isinstance(node, ast.JoinedStr), f"{place}:{node.lineno}: write it as a Sentence"
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield from filter(None, [node.value])
    elif isinstance(node, ast.IfExp):
        yield from literals(node.body, tree, place)
        yield from literals(node.orelse, tree, place)
    elif isinstance(node, ast.Name):
        for each in ast.walk(tree):
            if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id:
                yield from literals(each.value, tree, place) if not isinstance(each.value, ast.Name) else ()


def test_what_pydantic_says_of_a_field_is_told_with_its_bounds() -> None:
    class Form(BaseModel):
        name: str = Field(min_length=2, max_length=5)
        share: float = Field(gt=0, le=50, allow_inf_nan=False)
        count: int = Field(ge=1)

    bodies: list[dict[str, Any]] = [
        {},
        {"name": "x", "share": 0, "count": 0},
        {"name": "x" * 9, "share": 51, "count": "x"},
        {"name": 1, "share": "x", "count": 1.5},
        {"name": "xx", "share": float("inf"), "count": None},
    ]
    t = catalogue.translator("zh-Hant")
    for body in bodies:
        with pytest.raises(ValidationError) as caught:
            Form.model_validate(body)
        for problem in caught.value.errors():
            failure = failure_of(RequestValidationError([problem])).told(t)
            words = re.sub(r"name|share|count", "", failure.message, flags=re.IGNORECASE)
            assert not re.search("[A-Za-z]", words), failure.message


def test_all_that_the_log_of_operators_keeps_beside_a_deed_has_a_name() -> None:
    template = (WEB / "templates" / "_deed.html").read_text(encoding="utf-8")
    kept = set[str]()
    for file in [*WEB.rglob("*.py"), *(WEB.parent / "store").rglob("*.py")]:
        tree = ast.parse(file.read_text(encoding="utf-8"))
        for call in ast.walk(tree):
            if isinstance(call, ast.Call) and ast.unparse(call.func) == "audit.record":
                details = [each.value for each in call.keywords if each.arg == "detail"]
                kept |= {key for node in details for key in keys(node, tree)}
    assert {"role", "source", "drawn"} <= kept
    assert {key for key in kept if f'"{key}"' not in template} == set()


def test_each_deed_in_the_log_of_operators_has_a_name() -> None:
    template = (WEB / "templates" / "_deed.html").read_text(encoding="utf-8")
    assert set(re.findall(r'^  "(\w+)": t\(', template, re.MULTILINE)) == set(get_args(AuditAction))


def keys(node: ast.expr, tree: ast.Module) -> Iterator[str]:
    """The keys of a dict, written there or under a name."""
    if isinstance(node, ast.Dict):
        yield from (key.value for key in node.keys if isinstance(key, ast.Constant))
    for each in ast.walk(tree) if isinstance(node, ast.Name) else ():
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == node.id:
            yield from keys(each.value, tree)


@pytest.mark.parametrize("locale", OTHERS)
def test_each_language_has_exactly_the_texts_that_are_shown(locale: str) -> None:
    known = set(catalogue.texts(locale))
    assert shown() - known == set()
    assert known - shown() == set()


@pytest.mark.parametrize("locale", OTHERS)
def test_a_translation_has_the_names_of_its_original(locale: str) -> None:
    for text, translation in catalogue.texts(locale).items():
        assert names(text) == names(translation), text


def names(text: str) -> set[str]:
    """Its places for values, with their forms."""
    return set(re.findall(r"\{\w+[^}]*\}", text))


def test_names_are_filled_in_and_a_missing_text_stays_english() -> None:
    t = catalogue.translator("en")
    assert t("{count} messages", count=3) == "3 messages"
    assert t("No such text {here}") == "No such text {here}"


@pytest.mark.parametrize(
    ("preferred", "header", "expected"),
    [
        (None, "", "en"),
        (None, "de-DE,de;q=0.9", "en"),
        (None, "zh-TW,zh;q=0.9,en;q=0.8", "zh-Hant"),
        (None, "zh-Hant-HK", "zh-Hant"),
        (None, "en-GB,zh-TW;q=0.5", "en"),
        ("en", "zh-TW", "en"),
        ("zh-Hant", "en", "zh-Hant"),
        ("xx", "en", "en"),
        (None, ";;;q=,,--", "en"),
    ],
)
def test_the_reader_chooses_before_the_browser(preferred: str | None, header: str, expected: str) -> None:
    assert catalogue.choose(preferred, header) == expected
