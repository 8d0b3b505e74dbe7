"""The four shapes of judged answers."""

from __future__ import annotations

from typing import Any

import pytest

from tutelage.datasets.sources import ranked
from tutelage.dialogue import Comparison, Message, Preference

ASK = {"role": "user", "content": "Tea?"}
PROMPT = (Message("user", "Tea?"),)


def replied(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def ranking(candidates: list[str], groups: list[list[int]], **fields: Any) -> Comparison:
    return Comparison.from_ranking(PROMPT, candidates, groups, **({"source": "here"} | fields))


@pytest.mark.parametrize("prompt", [{"prompt": "Tea?"}, {"prompt": [ASK]}, {"messages": [ASK]}])
def test_our_own_rankings(read_rows: Any, prompt: dict[str, Any]) -> None:
    row = {**prompt, "candidates": ["no", "yes", "", "maybe"], "ranking": [[1], [0, 3]]}
    assert read_rows(ranked.parse, row).items == [ranking(["no", "yes", "", "maybe"], [[1], [0, 3]])]


def test_our_own_judgements_may_contradict_each_other(read_rows: Any) -> None:
    judged = [
        {"better": 0, "worse": 1, "gap": 3},
        {"better": 1, "worse": 2},
        {"better": 2, "worse": 0},
        {"better": 1, "worse": 0, "tie": True},
    ]
    row = {"prompt": "Tea?", "candidates": ["a", "b", "c"], "preferences": judged}
    row |= {"source": "kitchen", "author": "someone"}
    (comparison,) = read_rows(ranked.parse, row).items
    assert comparison.preferences == (
        Preference(0, 1, gap=3),
        Preference(1, 2),
        Preference(2, 0),
        Preference(1, 0, tie=True, gap=0),
    )
    assert (comparison.source, comparison.author) == ("kitchen", "someone")


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Tea?", "chosen": "yes", "rejected": "no"},
        {"prompt": [ASK], "chosen": [replied("yes")], "rejected": [replied("no")]},
        {"prompt": "Tea?", "chosen": [ASK, replied("yes")], "rejected": [ASK, replied("no")]},
        {"chosen": [ASK, replied("yes")], "rejected": [ASK, replied("no")], "score": 3},
        {"instruction": "Tea?", "input": "", "chosen": "yes", "rejected": "no"},
        {
            "conversations": [{"from": "human", "value": "Tea?"}],
            "chosen": {"from": "gpt", "value": "yes"},
            "rejected": {"from": "gpt", "value": "no"},
        },
        {
            "input": {"messages": [ASK], "tools": []},
            "preferred_output": [replied("yes")],
            "non_preferred_output": [replied("no")],
        },
    ],
)
def test_pairs_as_others_write_them(read_rows: Any, row: dict[str, Any]) -> None:
    assert read_rows(ranked.parse, row).items == [ranking(["yes", "no"], [[0], [1]])]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "Tea?", "chosen": "yes", "rejected": "no"},
        {"prompt": "Tea?", "chosen": [ASK, replied("yes")], "rejected": [ASK, replied("no")]},
        {"chosen": [ASK, replied("yes")], "rejected": [ASK, replied("no")]},
    ],
)
def test_a_system_message_beside_a_pair_belongs_to_its_prompt(read_rows: Any, row: dict[str, Any]) -> None:
    (comparison,) = read_rows(ranked.parse, row | {"system": "Be brief."}).items
    assert comparison.prompt == (Message("system", "Be brief."), *PROMPT)
    assert comparison.candidates == ("yes", "no")


def test_answers_that_are_the_same_are_left_out(read_rows: Any) -> None:
    found = read_rows(
        ranked.parse,
        {"prompt": "Tea?", "chosen": "yes", "rejected": "yes"},
        {"prompt": "Tea?", "candidates": ["yes", "yes", "no"], "ranking": [[0, 1], [2]]},
    )
    assert len(found.items) == 1
    assert found.skipped == {"the answers are the same": 1}


def test_a_reply_may_be_empty_in_a_pair_and_a_message_before_it_may_not(read_rows: Any) -> None:
    pair = {"prompt": "Tea?", "chosen": [replied("")], "rejected": "no"}
    spoilt = {"prompt": "Tea?", "chosen": [{"role": "user", "content": ""}, replied("")], "rejected": "no"}
    found = read_rows(ranked.parse, pair, spoilt)
    assert found.items == [ranking(["", "no"], [[0], [1]])]
    assert found.problems == ["message 1 is empty"]


def test_answers_best_first(read_rows: Any) -> None:
    row = {"instruction": "Tea?", "input": "", "output": ["yes", "hm", "no"], "history": []}
    (comparison,) = read_rows(ranked.parse, row).items
    assert comparison == ranking(["yes", "hm", "no"], [[0], [1], [2]])
    assert len(comparison.preferences) == 3


def judged(*verdicts: int, **fields: Any) -> dict[str, Any]:
    predictions = {f"prediction {number}": f"answer {number}" for number in range(1, 5)}
    return {"question": "Tea?", "passages": [], "preference": list(verdicts), **predictions, **fields}


def test_six_judgements_of_four_answers_in_their_order(read_rows: Any) -> None:
    (comparison,) = read_rows(ranked.parse, judged(1, 2, 0, 1, 2, 0)).items
    assert comparison.prompt == PROMPT
    assert comparison.candidates == ("answer 1", "answer 2", "answer 3", "answer 4")
    assert comparison.preferences == (
        Preference(0, 1),
        Preference(2, 0),
        Preference(0, 3, tie=True, gap=0),
        Preference(1, 2),
        Preference(3, 1),
        Preference(2, 3, tie=True, gap=0),
    )


def test_passages_stand_before_the_question(read_rows: Any) -> None:
    passages = [["Tea", "Tea\n\nTea is a plant.", "It is drunk hot. "], ["Cups", "They break."], ["Milk"]]
    (comparison,) = read_rows(ranked.parse, judged(0, 0, 0, 0, 0, 0, passages=passages)).items
    assert comparison.prompt[0].content == (
        "Use these passages to answer the question below.\n\n"
        "[1] Tea\nTea is a plant. It is drunk hot.\n\n"
        "[2] Cups\nThey break.\n\n"
        "[3] Milk\n\n"
        "Question: Tea?"
    )


def test_a_row_that_judges_no_pair_is_left_out(read_rows: Any) -> None:
    found = read_rows(ranked.parse, {"prompt": "Tea?", "candidates": ["a", "b"], "ranking": [[0]]})
    assert (found.items, found.skipped) == ([], {"no pair of answers was judged": 1})


OWN = {"prompt": "Tea?", "candidates": ["a", "b"]}


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({}, 'there is no "candidates", no "chosen" and "rejected", no "prediction 1"'),
        ({"output": "yes"}, 'no list in "output"'),
        ({**OWN, "candidates": "ab"}, "candidates should be a list, not text"),
        ({**OWN, "candidates": ["a", 2]}, "a candidate should be text, not a number"),
        (OWN, "ranking should be a list, not nothing"),
        ({**OWN, "ranking": [[0], [2]]}, "a ranking names each of 2 candidates at most once"),
        ({**OWN, "ranking": [[0], [0]]}, "a ranking names each of 2 candidates at most once"),
        ({**OWN, "ranking": [[0, 1.0]]}, "ranking should hold whole numbers, not a number"),
        ({**OWN, "preferences": [[0, 1]]}, "a preference should be an object, not a list"),
        ({**OWN, "preferences": [{"better": 0, "worse": 0}]}, "two of 2 candidates, not 0 and 0"),
        ({**OWN, "preferences": [{"better": -1, "worse": 0}]}, "two of 2 candidates, not -1 and 0"),
        ({**OWN, "preferences": [{"better": 0, "worse": 1, "gap": -1}]}, "a negative gap"),
        ({**OWN, "preferences": [{"better": 0, "worse": 1, "tie": 1}]}, "a tie that is not true or false"),
        ({"prompt": [ASK, replied("x")], **OWN, "ranking": [[0], [1]]} | {"prompt": []}, "no user message"),
        ({"chosen": "yes", "rejected": "no"}, 'there is no "prompt"; transcripts'),
        ({"prompt": "", "chosen": "yes", "rejected": "no"}, "message 1 is empty"),
        ({"prompt": "Tea?", "chosen": [], "rejected": "no"}, "should be one reply of the assistant's"),
        ({"prompt": "Tea?", "chosen": [ASK], "rejected": "no"}, "should be one reply of the assistant's"),
        (
            {"prompt": "Cake?", "chosen": [ASK, replied("yes")], "rejected": "no"},
            "should be one reply of the assistant's",
        ),
        ({"chosen": [ASK, replied("yes")], "rejected": [replied("no")]}, "part before the last message"),
        ({"chosen": [ASK, replied("yes")], "rejected": "no"}, "rejected should be a list, not text"),
        ({"input": {}, "preferred_output": [replied("yes")]}, "rejected should be a list, not nothing"),
        (judged(1, 2), "preference should hold 6 judgements, not 2"),
        (judged(1, 2, 0, 1, 2, 3), "should be 0, 1 or 2, not '3'"),
        (judged(0, 0, 0, 0, 0, 0, question=" "), "question is empty"),
        (judged(0, 0, 0, 0, 0, 0, passages=[[]]), "passage 1 is empty"),
        (judged(0, 0, 0, 0, 0, 0, passages=["Tea"]), "passage 1 should be a list, not text"),
    ],
)
def test_what_is_no_comparison_is_a_problem_in_words(read_rows: Any, row: Any, reason: str) -> None:
    found = read_rows(ranked.parse, row)
    assert not found.items
    (problem,) = found.problems
    assert reason in problem
