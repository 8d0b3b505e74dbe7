"""Stop strings and the completion that uses them."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tutelage.engine.interface import Sampling
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.models import tiny
from tutelage.moderation.gate import Gate
from tutelage.moderation.policy import Policy
from tutelage.rendering import load_renderer
from tutelage.server.completion import Completion, StopStrings


class Word:
    """A classifier that finds one word violent."""

    def score(self, texts: Sequence[str], contexts: Sequence[str] | None = None) -> list[dict[str, float]]:
        return [{"violence": float("murder" in text)} for text in texts]


@pytest.fixture
def engine(tmp_path: Path) -> ScriptedEngine:
    tiny.write_text_files(tmp_path)
    return ScriptedEngine(["Héllo ☕ there. How can I help?"], renderer=load_renderer(tmp_path))


def complete(
    engine: ScriptedEngine, *, stop: Sequence[str] = (), max_tokens: int | None = None, begun: str = ""
) -> tuple[str, Completion]:
    async def run() -> tuple[str, Completion]:
        completion = Completion(engine, Gate(Policy.load(), Word()), stop=stop, begun=begun)
        pieces = [piece async for piece in completion.pieces([1], Sampling(max_tokens=max_tokens))]
        return "".join(pieces) + await completion.finish(), completion

    return asyncio.run(run())


@given(
    text=st.text(alphabet="ab!", max_size=30),
    stops=st.lists(st.text(alphabet="ab!", min_size=1, max_size=4), max_size=3),
    cuts=st.lists(st.integers(0, 30), max_size=8),
)
def test_stop_strings_do_not_depend_on_how_the_text_is_cut(
    text: str, stops: list[str], cuts: list[int]
) -> None:
    edges = [0, *sorted(cuts), len(text)]
    strings = StopStrings(stops)
    found = ""
    for start, end in pairwise(edges):
        found += strings.push(text[start:end])
        if strings.found:
            break
    else:
        found += strings.finish()
    places = [text.find(stop) for stop in stops if stop in text]
    if not places:
        assert (found, strings.found) == (text, False)
        return
    assert strings.found
    # A longer stop string that begins earlier may be seen only after a shorter one has ended the text.
    assert any(found == text[:place] for place in places)
    assert all(stop not in found for stop in stops)


def test_what_cannot_become_a_stop_string_is_not_held_back() -> None:
    strings = StopStrings(["END"])
    assert strings.push("the E") == "the "
    assert strings.push("x") == "Ex"
    assert strings.push("EN") == ""
    assert strings.push("D") == ""
    assert strings.found


def test_text_comes_whole_across_characters_of_many_tokens(engine: ScriptedEngine) -> None:
    text, completion = complete(engine)
    assert text == completion.text == "Héllo ☕ there. How can I help?"
    assert completion.finish_reason == "stop"
    assert len(completion.tokens) == len(text.encode())


def test_a_character_that_was_cut_is_shown_as_one(engine: ScriptedEngine) -> None:
    text, completion = complete(engine, max_tokens=len("Héllo ".encode()) + 1)
    assert (text, completion.finish_reason) == ("Héllo \ufffd", "length")


def test_a_stop_string_ends_the_generation(engine: ScriptedEngine) -> None:
    text, completion = complete(engine, stop=["there"])
    assert (text, completion.finish_reason) == ("Héllo ☕ ", "stop")
    assert len(completion.tokens) == len("Héllo ☕ there".encode())
    assert engine.running == 0


def test_a_blocked_completion_keeps_its_text_for_the_record_alone(engine: ScriptedEngine) -> None:
    engine.script(["This is how it all begins, quietly. Then a murder happens in it. And so on and on."])
    text, completion = complete(engine)
    assert text == "This is how it all begins, quietly. "
    assert "murder" in completion.text
    assert "And so on" not in completion.text
    assert completion.finish_reason == "content_filter"
    assert engine.running == 0


@pytest.mark.parametrize(
    "begun",
    [
        "Well,",
        "A whole sentence that the filter lets go. ",
        "A whole sentence that the filter lets go. And half of one",
        "x" * 450,
    ],
)
def test_what_goes_on_gives_the_new_words_alone(engine: ScriptedEngine, begun: str) -> None:
    shown, completion = complete(engine, begun=begun)
    assert shown == "Héllo ☕ there. How can I help?"
    assert completion.text == begun + shown


def test_what_goes_on_is_judged_as_a_whole(engine: ScriptedEngine) -> None:
    engine.script(["der is what it is about. And so on, for a while, and longer."])
    shown, completion = complete(engine, begun="This is fine, and everybody may read it. The mur")
    assert shown == ""
    assert completion.verdict is not None
    assert (completion.verdict.state, completion.finish_reason) == ("blocked", "content_filter")
    engine.script(["Never said."])
    shown, completion = complete(engine, begun="A murder, which an older policy let pass. And so")
    assert (shown, completion.tokens, completion.finish_reason) == ("", [], "content_filter")


def test_what_goes_on_and_is_stopped_at_once_is_judged_by_what_it_had_said(engine: ScriptedEngine) -> None:
    async def run() -> Completion:
        completion = Completion(engine, Gate(Policy.load(), Word()), begun="A murder. And so")
        assert await completion.finish() == ""
        return completion

    verdict = asyncio.run(run()).verdict
    assert verdict is not None
    assert verdict.state == "blocked"
