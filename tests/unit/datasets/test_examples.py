"""Dialogues, comparisons and prompts as the tokens that are trained on."""

from __future__ import annotations

from pathlib import Path

import pytest

from tutelage.datasets.preference import completion_ids, dialogue_ids, render_comparisons
from tutelage.datasets.prompts import render_prompts
from tutelage.datasets.sft import mix, render_examples
from tutelage.dialogue import Comparison, Dialogue, Message
from tutelage.errors import ConfigError
from tutelage.models import tiny
from tutelage.rendering import Renderer, load_renderer

TALK = (
    Message("user", "hi"),
    Message("assistant", "hello"),
    Message("user", "bye"),
    Message("assistant", "see you"),
)


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder: Path = tmp_path_factory.mktemp("tiny")
    tiny.write_text_files(folder)
    return load_renderer(folder)


def test_a_long_dialogue_loses_whole_turns_only(renderer: Renderer) -> None:
    whole, first = renderer.example(TALK), renderer.example(TALK[:2])
    found = render_examples([Dialogue(TALK)], renderer, max_tokens=len(whole.token_ids) - 1)
    assert found.rendered == [first]
    assert (found.shortened, found.left_out) == (1, 0)
    found = render_examples([Dialogue(TALK)], renderer, max_tokens=len(first.token_ids) - 1)
    assert (found.rendered, found.shortened, found.left_out) == ([], 0, 1)


def test_the_most_turns_that_fit_are_kept(renderer: Renderer) -> None:
    talk = tuple(Message("assistant" if turn % 2 else "user", "word") for turn in range(40))
    for turns in range(2, 41, 2):
        for room in (0, 1):
            wanted = renderer.example(talk[:turns])
            found = render_examples([Dialogue(talk)], renderer, max_tokens=len(wanted.token_ids) + room)
            assert found.rendered == [wanted]


def test_a_comparison_is_scored_at_each_end_token(renderer: Renderer) -> None:
    comparison = Comparison.from_ranking(TALK[:1], ["hello", "no"], [[0], [1]], source="s")
    (example,) = render_comparisons([comparison], renderer, max_tokens=100).rendered
    assert example.prompt_ids == renderer.prompt(TALK[:1])
    assert [ids[-1] for ids in example.completions] == [renderer.end_id] * 2
    assert [renderer.decode(ids) for ids in example.completions] == ["hello", "no"]
    assert (example.root, example.source) == ("hi", "s")
    assert example.tokens == len(example.prompt_ids) + len(b"hello") + len(b"no") + 2
    for room, kept in ((6, 1), (5, 0)):  # the longest dialogue is the prompt, five bytes and the end token
        found = render_comparisons([comparison], renderer, max_tokens=len(example.prompt_ids) + room)
        assert len(found.rendered) == kept


def test_the_root_is_what_the_user_said_first(renderer: Renderer) -> None:
    asked = (Message("system", "Rhyme."), *TALK[:3])
    comparison = Comparison.from_ranking(asked, ["hello", "no"], [[0], [1]])
    assert render_comparisons([comparison], renderer, max_tokens=200).rendered[0].root == "hi"


def test_prompt_and_completion_are_the_rendered_dialogue(renderer: Renderer) -> None:
    prompt, completion = dialogue_ids(TALK, renderer)
    whole = renderer.example(TALK).token_ids
    assert [*prompt, *completion] == whole[: len(prompt) + len(completion)]
    assert completion == completion_ids("see you", renderer)


def test_what_cannot_be_learnt_from_is_left_out_and_counted(renderer: Renderer) -> None:
    long = Comparison.from_ranking(TALK[:1], ["x" * 200, "no"], [[0], [1]])
    unjudged = Comparison(TALK[:1], ("a", "b"), ())
    same = Comparison.from_ranking(TALK[:1], ["yes", "yes"], [[0], [1]])
    single = Comparison.from_ranking(TALK[:1], ["alone"], [[0]])
    found = render_comparisons([long, unjudged, same, single], renderer, max_tokens=100)
    assert found.rendered == []
    assert +found.left_out == {"too_long": 1, "unjudged": 3, "equal_texts": 1}


def test_ties_are_kept_or_dropped(renderer: Renderer) -> None:
    mixed = Comparison.from_ranking(TALK[:1], ["a", "b", "c"], [[0, 1], [2]])
    tied = Comparison.from_ranking(TALK[:1], ["a", "b"], [[0, 1]])
    soft = render_comparisons([mixed, tied], renderer, max_tokens=100, ties="soft")
    assert [len(example.preferences) for example in soft.rendered] == [3, 1]
    dropped = render_comparisons([mixed, tied], renderer, max_tokens=100, ties="drop")
    assert [len(example.preferences) for example in dropped.rendered] == [2]
    assert +dropped.left_out == {"ties": 2, "unjudged": 1}


def test_pairs_of_equal_texts_teach_nothing(renderer: Renderer) -> None:
    comparison = Comparison.from_ranking(TALK[:1], ["a", "a", "c"], [[0], [1], [2]])
    found = render_comparisons([comparison], renderer, max_tokens=100)
    assert [(pair.better, pair.worse) for pair in found.rendered[0].preferences] == [(0, 2), (1, 2)]
    assert +found.left_out == {"equal_texts": 1}


def test_an_empty_answer_is_scored_at_its_end_token(renderer: Renderer) -> None:
    comparison = Comparison.from_ranking(TALK[:1], ["", "hello"], [[1], [0]])
    (example,) = render_comparisons([comparison], renderer, max_tokens=100).rendered
    assert example.completions[0] == [renderer.end_id]


def test_prompts_are_distinct_and_never_cut(renderer: Renderer) -> None:
    short, long = Dialogue(TALK[:1]), Dialogue((Message("user", "x" * 300),))
    found = render_prompts([short, long, short], renderer, max_tokens=100)
    assert [prompt.messages for prompt in found.rendered] == [TALK[:1]]
    assert found.left_out == 1


def test_a_mix_has_the_shares_it_was_asked_for() -> None:
    rows = [Dialogue(TALK, source="ours") for _ in range(30)] + [
        Dialogue(TALK, source="set") for _ in range(300)
    ]
    chosen = mix(rows, {"ours": 0.75, "set": 0.25}, seed=0)
    sources = [dialogue.source for dialogue in chosen]
    assert (sources.count("ours"), sources.count("set")) == (30, 10)
    assert mix(rows, {}, seed=0) == rows


def test_a_mix_of_an_unknown_source_names_the_known_ones() -> None:
    with pytest.raises(ConfigError, match="'nope'") as raised:
        mix([Dialogue(TALK, source="ours")], {"nope": 1.0}, seed=0)
    assert "ours (1)" in raised.value.hint
