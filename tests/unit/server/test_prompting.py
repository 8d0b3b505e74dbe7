"""What of a dialogue the model reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.dialogue import Message, check_turns
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.errors import ContextTooLong
from tutelage.models import tiny
from tutelage.rendering import Renderer, load_renderer
from tutelage.server.prompting import fit, readable
from tutelage.store import tables


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tiny.write_text_files(folder)
    return load_renderer(folder)


def row(role: Any, content: str, status: Any = "complete") -> tables.Message:
    return tables.Message(role=role, content=content, status=status)


def dialogue(turns: int, length: int = 10, *, system: str = "") -> list[Message]:
    head = [Message("system", system)] if system else []
    return head + [
        Message("assistant" if n % 2 else "user", f"{n:02d}" * (length // 2)) for n in range(turns)
    ]


def test_whole_turns_with_blocked_or_missing_words_are_left_out() -> None:
    path = [
        row("system", "Be kind."),
        row("user", "one"),
        row("assistant", "eins"),
        row("user", "bad", "blocked"),
        row("assistant", "", "blocked"),
        row("user", "two"),
        row("assistant", "bad", "blocked"),
        row("user", "three"),
        row("assistant", "", "interrupted"),
        row("user", "four"),
        row("assistant", "vier", "interrupted"),
    ]
    texts = [message.content for message in readable(path)]
    assert texts == ["Be kind.", "one", "eins", "four", "vier"]


def test_a_dialogue_that_fits_is_read_whole(renderer: Renderer) -> None:
    engine = ScriptedEngine(["x"], renderer=renderer)
    messages = dialogue(5, system="Be kind.")
    prompt = fit(engine, messages, answer_tokens=100)
    assert (prompt.token_ids, prompt.dropped) == (renderer.prompt(messages), 0)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
@given(
    turns=st.integers(0, 12).map(lambda n: 2 * n + 1),
    length=st.integers(1, 30).map(lambda n: 2 * n),
    context=st.integers(200, 900),
    system=st.sampled_from(["", "Be kind."]),
)
def test_the_newest_turns_that_leave_room_are_read(
    renderer: Renderer, turns: int, length: int, context: int, system: str
) -> None:
    engine = ScriptedEngine(["x"], renderer=renderer, context_length=context)
    messages = dialogue(turns, length, system=system)
    head = messages[: 1 if system else 0]
    prompt = fit(engine, messages, answer_tokens=50)
    kept = [*head, *messages[len(head) + prompt.dropped :]]
    assert prompt.token_ids == renderer.prompt(kept)
    assert check_turns(kept, last="user") is None
    room = context - min(50, context // 4)
    assert len(prompt.token_ids) <= room or prompt.dropped == turns - 1
    if prompt.dropped:
        more = [*head, *messages[len(head) + prompt.dropped - 2 :]]
        assert len(renderer.prompt(more)) > room


def test_a_last_message_that_never_fits_is_refused(renderer: Renderer) -> None:
    engine = ScriptedEngine(["x"], renderer=renderer, context_length=100)
    overhead = len(renderer.prompt([Message("user", "")]))
    longest = 99 - overhead
    assert len(fit(engine, [Message("user", "a" * longest)], answer_tokens=10).token_ids) == 99
    for text in ("a" * (longest + 1), "a" * 100_000):
        with pytest.raises(ContextTooLong, match="reads at most 99"):
            fit(engine, [Message("user", text)], answer_tokens=10)


def test_a_long_history_is_not_rendered_to_find_what_fits(renderer: Renderer) -> None:
    rendered: list[int] = []

    class Counting(Renderer):
        def __init__(self) -> None:
            self.__dict__ = renderer.__dict__

        def prompt(self, messages: Any) -> list[int]:
            rendered.append(len(messages))
            return super().prompt(messages)

    engine = ScriptedEngine(["x"], renderer=Counting())
    fit(engine, dialogue(2001, 40), answer_tokens=100)
    assert max(rendered) < 40
    assert len(rendered) < 20
