"""OpenAI's messages, ShareGPT's conversations, bare prompts."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.datasets.sources import messages
from tutelage.dialogue import Dialogue, Message

ASK, REPLY = {"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello!"}
TURNS = (Message("user", "Hi"), Message("assistant", "Hello!"))


def test_messages_become_a_dialogue_word_for_word(read_rows: Any) -> None:
    reply = {"role": "assistant", "content": "  two\n\nlines \n"}
    found = read_rows(messages.parse, {"messages": [{"role": "system", "content": "Be kind."}, ASK, reply]})
    turns = (Message("system", "Be kind."), TURNS[0], Message("assistant", "  two\n\nlines \n"))
    assert found.items == [Dialogue(turns, source="here")]


def test_developer_is_system_and_text_parts_are_joined(read_rows: Any) -> None:
    system = {"role": "developer", "content": [{"type": "text", "text": "Be "}, {"text": "kind."}]}
    (dialogue,) = read_rows(messages.parse, {"messages": [system, ASK, REPLY]}).items
    assert dialogue.messages == (Message("system", "Be kind."), *TURNS)


def test_an_empty_system_message_is_none(read_rows: Any) -> None:
    (dialogue,) = read_rows(
        messages.parse, {"messages": [{"role": "system", "content": " "}, ASK, REPLY]}
    ).items
    assert dialogue.messages == TURNS


def test_sharegpt_conversations(read_rows: Any) -> None:
    row = {"conversations": [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]}
    assert read_rows(messages.parse, row).items == [Dialogue(TURNS, source="here")]


@pytest.mark.parametrize("name", ["messages", "conversations", "conversation"])
def test_either_way_to_write_a_message_stands_under_each_name(read_rows: Any, name: str) -> None:
    shared = [{"from": "Human", "value": "Hi"}, {"from": "gpt", "value": "Hello!"}]
    found = read_rows(messages.parse, {name: [ASK, REPLY]}, {name: shared})
    assert found.items == [Dialogue(TURNS, source="here")]
    assert found.skipped == {"the same as one before it": 1}


@pytest.mark.parametrize("row", [{"messages": [ASK, REPLY]}, {"prompt": "Hi", "completion": "Hello!"}])
def test_a_system_message_beside_the_others_comes_first(read_rows: Any, row: Any) -> None:
    twice = {"messages": [{"role": "system", "content": "Be kind."}, ASK, REPLY], "system": "Be kind."}
    assert (
        read_rows(messages.parse, twice).items
        == read_rows(messages.parse, row | {"system": "Be kind."}).items
    )
    found = read_rows(messages.parse, row | {"system": "Be kind."}, row | {"system": ""})
    assert [item.messages for item in found.items] == [(Message("system", "Be kind."), *TURNS), TURNS]


@pytest.mark.parametrize(
    "answer",
    [{"completion": " Hello!\n"}, {"completion": [REPLY]}, {"response": "Hello!"}, {"output": "Hello!"}],
)
def test_a_prompt_with_its_answer_is_a_demonstration(read_rows: Any, answer: Any) -> None:
    for prompt in ("Hi", [ASK]):
        assert read_rows(messages.parse, {"prompt": prompt} | answer).items == [
            Dialogue(TURNS, source="here")
        ]


def test_a_bare_prompt_is_text_or_messages(read_rows: Any) -> None:
    found = read_rows(messages.parse, {"prompt": "Hi"}, {"prompt": [ASK, REPLY, ASK]})
    assert [item.messages for item in found.items] == [TURNS[:1], (*TURNS, TURNS[0])]


def test_a_row_may_name_its_own_source(read_rows: Any) -> None:
    (dialogue,) = read_rows(messages.parse, {"messages": [ASK, REPLY], "source": "our forum"}).items
    assert dialogue.source == "our forum"


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, 'there is no "messages", "conversations" or "prompt"'),
        ({"title": "Tea", "mapping": {}, "current_node": "a"}, "a chat of ChatGPT's export"),
        ({"messages": {"role": "user"}}, "messages should be a list, not an object"),
        ({"messages": []}, "there is no user message"),
        ({"messages": ["Hi"]}, "message 1 should be an object, not text"),
        ({"messages": [REPLY]}, "turn 1 should be the user's, not the assistant's"),
        ({"messages": [ASK, ASK]}, "turn 2 should be the assistant's, not the user's"),
        ({"messages": [ASK, {"role": "tool", "content": "4"}]}, "message 2 has the role 'tool'"),
        ({"messages": [ASK, {"role": ["user"], "content": "4"}]}, "message 2 has the role \"['user']\""),
        (
            {"messages": [ASK, {"role": "assistant", "content": None}]},
            "message 2 should be text, not nothing",
        ),
        ({"messages": [ASK, {"role": "assistant", "content": " "}]}, "message 2 is empty"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "a part that is not text"),
        ({"prompt": "a\0b"}, "prompt holds a NUL character"),
        ({"prompt": "a\ud800b"}, "prompt holds half a surrogate pair at character 2"),
        ({"prompt": [ASK, REPLY]}, "the last message should be the user's, not the assistant's"),
        ({"conversations": ["Hi"]}, "message 1 should be an object, not text"),
        ({"conversations": [{"from": "tool", "value": "4"}]}, "message 1 has the role 'tool'"),
        ({"messages": [ASK, REPLY | {"tool_calls": [{}]}]}, "message 2 calls a tool"),
        ({"messages": [ASK, REPLY | {"function_call": {"name": "f"}}]}, "message 2 calls a tool"),
        ({"messages": [ASK, REPLY | {"weight": 0}]}, "message 2 has the weight 0"),
        ({"prompt": "Hi", "completion": " "}, "completion is empty"),
        ({"prompt": "Hi", "completion": [ASK]}, "completion should be one reply of the assistant's"),
        ({"prompt": "Hi", "completion": "Go.", "label": False}, "the answers to this prompt were judged"),
        ({"prompt": "Hi", "chosen": "Hello!", "rejected": "Go."}, "the answers to this prompt were judged"),
        ({"prompt": "Hi", "source": 3}, "source should be text, not a number"),
    ],
)
def test_what_is_no_dialogue_is_a_problem_in_words(read_rows: Any, row: Any, reason: str) -> None:
    found = read_rows(messages.parse, row)
    assert not found.items
    (problem,) = found.problems
    assert reason in problem
