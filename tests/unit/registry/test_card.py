"""A card tells what a version is, and nothing of what people wrote."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tutelage.registry import ModelVersion
from tutelage.registry.card import Base, CardFacts, card

BASE = Base("acme/model-1b", "apache-2.0", "A remark.")


def version(**changes: Any) -> ModelVersion:
    fields: dict[str, Any] = {
        "name": "v3",
        "kind": "chat",
        "model": "/home/somebody/models/model-1b",
        "adapter": Path("adapter"),
        "weights": None,
        "parents": (),
        "created": datetime(2026, 1, 2, tzinfo=UTC),
        "snapshot": None,
        "run": "round-0001",
        "config": {"sft": {"model": "/home/somebody/models/model-1b", "epochs": 2}},
        "code": "0.1.0",
        "evaluation": {},
        "notes": "",
        "path": Path("v3"),
    }
    return ModelVersion(**{**fields, **changes})


def head(text: str) -> dict[str, Any]:
    """The YAML head; each value of it is JSON too."""
    _, lines, _ = text.split("---\n", 2)
    return {key: json.loads(value) for key, _, value in (line.partition(": ") for line in lines.splitlines())}


@pytest.mark.parametrize(
    ("form", "library", "relation"),
    [
        ("peft", "peft", "adapter"),
        ("safetensors", "transformers", "finetune"),
        ("gguf", "gguf", "quantized"),
    ],
)
def test_the_head_is_what_hubs_read(form: Any, library: str, relation: str) -> None:
    found = head(card(CardFacts(version(), [], BASE, form=form, files=["model.gguf"])))
    assert (found["license"], found["base_model"]) == ("apache-2.0", "acme/model-1b")
    assert (found["library_name"], found["base_model_relation"]) == (library, relation)
    assert found["pipeline_tag"] == "text-generation"


def test_an_unknown_licence_is_said_to_be_unknown() -> None:
    text = card(CardFacts(version(), [], Base("mine", None)))
    assert head(text)["license"] == "other"
    assert "look it up" in text


def test_where_it_came_from() -> None:
    parent = replace(version(), name="v2", parents=("v1",))
    text = card(
        CardFacts(
            version(parents=("v2", "r1"), snapshot="abc", notes="Kinder."),
            [parent],
            BASE,
            {"demonstrations": {"written": 1200, "oasst": 3}, "comparisons": {"ranking": 40}},
        )
    )
    assert "Kinder." in text
    assert "| v2 | chat | 2026-01-02 | v1 |" in text
    assert "No longer there: r1." in text
    assert "| demonstrations | written | 1,200 |" in text
    assert "| comparisons | ranking | 40 |" in text
    assert "A remark." in text


def test_numbers_with_intervals_and_no_words_of_people() -> None:
    evaluation = {
        "speakers": {"after": {"reward": {"value": 0.5, "low": 0.25, "high": 0.75}, "length": 31.5}},
        "gain": {"value": None, "low": None, "high": None},
        "loss": None,
        "answers": [{"prompt": [{"role": "user", "content": "SECRET"}], "answers": {}}],
    }
    text = card(CardFacts(version(evaluation=evaluation), [], BASE))
    assert "| speakers, after, reward | 0.5 | 0.25 to 0.75 |" in text
    assert "| speakers, after, length | 31.5 |  |" in text
    assert "| gain | no data |" in text
    assert "SECRET" not in text


def test_a_local_path_is_not_told() -> None:
    text = card(CardFacts(version(), [], BASE))
    assert "somebody" not in text
    assert '"model": "acme/model-1b"' in text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, "low-rank adapters"),
        ({"adapter": None, "weights": Path("weights")}, "all weights"),
        ({"adapter": None}, "as it is"),
        ({"kind": "reward", "name": "r1"}, "A reward model"),
    ],
)
def test_the_kind_of_model_is_said(changes: dict[str, Any], said: str) -> None:
    assert said in card(CardFacts(version(**changes), [], BASE))
