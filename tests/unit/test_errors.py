"""Every error says what happened, where, and the way out."""

from __future__ import annotations

import inspect
import json
import re
from pathlib import Path

import pytest

from tutelage import errors
from tutelage.errors import ContextTooLong, DataError, RateLimited, Sentence, TutelageError
from tutelage.web.catalogue import translator


def classes() -> dict[str, type[TutelageError]]:
    members = inspect.getmembers(errors, inspect.isclass)
    return {name: each for name, each in members if issubclass(each, TutelageError)}


def test_the_tree_at_the_top_of_the_module_is_the_tree_of_classes() -> None:
    drawn: list[str] = []
    branch: list[str] = []
    for line in (errors.__doc__ or "").splitlines():
        match = re.match(r"([│ ]*(?:[├└]── )?)([A-Z]\w+)(?: {2}|$)", line)
        if match:
            depth = len(match[1]) // 4
            branch = [*branch[:depth], match[2]]
            drawn.append("/".join(branch))
    real = {"/".join(c.__name__ for c in reversed(each.__mro__[:-3])) for each in classes().values()}
    assert len(drawn) == len(set(drawn))
    assert set(drawn) == real


@pytest.mark.parametrize("name", sorted(classes()))
def test_every_error_carries_a_hint(name: str) -> None:
    kind = classes()[name]
    error = (
        kind("it broke", hint="mend it", retry_after=1)
        if kind is RateLimited
        else kind("it broke", hint="mend it")
    )
    assert (error.message, error.hint) == ("it broke", "mend it")
    assert str(error) == "it broke\nhint: mend it"


def test_place_and_hint_are_left_out_when_there_are_none() -> None:
    assert str(TutelageError("it broke")) == "it broke"
    assert str(TutelageError("it broke", where="recipe.toml")) == "recipe.toml: it broke"


@pytest.mark.parametrize(
    ("path", "line", "place"),
    [(None, None, ""), (Path("a.jsonl"), None, "a.jsonl"), ("a.jsonl", 3, "a.jsonl:3"), (None, 3, "")],
)
def test_bad_data_names_its_file_and_line(path: Path | str | None, line: int | None, place: str) -> None:
    error = DataError("not JSON", path=path, line=line)
    assert (error.where, error.path, error.line) == (place, path, line)


def test_requests_name_the_field_at_fault_and_a_code() -> None:
    error = ContextTooLong("too long", param="messages", code="context_length_exceeded")
    assert (error.param, error.code) == ("messages", "context_length_exceeded")


def test_limits_say_how_long_to_wait() -> None:
    assert RateLimited("too many requests", retry_after=2.5).retry_after == 2.5


def test_a_sentence_can_be_kept_as_json_and_told_later_in_another_language() -> None:
    words = {"{who} said {what!r} {count:.1f} times": "{who}: {what!r} ({count:.1f})", "nobody": "personne"}
    sentence = Sentence(
        "{who} said {what!r} {count:.1f} times", who=Sentence("nobody"), what=Path("a"), count=2.25
    )
    again = Sentence.restored(json.loads(json.dumps(sentence.stored())))
    assert again == sentence == "nobody said 'a' 2.2 times"
    assert again.told(lambda text, **values: words[text].format(**values)) == "personne: 'a' (2.2)"
    assert Sentence.restored("words as they are {so}") == "words as they are {so}"


def test_an_error_is_one_sentence_of_its_place_its_message_and_its_hint() -> None:
    error = TutelageError(Sentence("{count} rows", count=3), where="a.jsonl", hint="mend it")
    assert error.sentence == str(error) == "a.jsonl: 3 rows\nhint: mend it"
    assert error.sentence.told(translator("zh-Hant")) == "a.jsonl：3 rows\n建議：mend it"
