"""Guidelines and prompts to begin from."""

from __future__ import annotations

import random
from collections import Counter
from types import SimpleNamespace

import pytest

from tutelage.errors import InvalidRequest
from tutelage.store import Store, labelling
from tutelage.store.labelling import LabellingSettings


def test_guidelines_change_by_versions(store: Store, cast: SimpleNamespace) -> None:
    with store.write() as tx:
        assert labelling.current_guidelines(tx, "write") is None
        first = labelling.change_guidelines(tx, "write", "Be kind.", by=cast.operator)
        assert labelling.change_guidelines(tx, "write", "Be kind. ", by=cast.operator).id == first.id
        labelling.change_guidelines(tx, "write", "Be kind and brief.", by=cast.operator)
        labelling.change_guidelines(tx, "rank", "Truth first.", by=cast.operator)
        current = labelling.current_guidelines(tx, "write")
        assert current is not None
        assert (current.version, current.content, current.author_id) == (
            2,
            "Be kind and brief.",
            cast.operator,
        )
        assert [row.version for row in labelling.guidelines_history(tx, "write")] == [2, 1]
        labelling.change_guidelines(tx, "write", "", by=cast.operator)
        assert labelling.current_guidelines(tx, "write") is None
        for place, content in (("chat", "x"), ("write", "x" * 60_000)):
            with pytest.raises(InvalidRequest):
                labelling.change_guidelines(tx, place, content, by=cast.operator)


def test_prompts_are_kept_once_and_the_least_used_comes_first(store: Store) -> None:
    with store.write() as tx:
        assert labelling.add_writing_prompts(tx, "refuse", ["one", " one", "two", ""]) == 2
        assert labelling.add_writing_prompts(tx, "refuse", ["two", "three"]) == 1
        with pytest.raises(InvalidRequest):
            labelling.add_writing_prompts(tx, "unknown", ["x"])
        assert labelling.count_writing_prompts(tx)["refuse"] == 3
        drawn = []
        for seed in range(3):
            start = labelling.draw_start(tx, random.Random(seed), topic="refuse")
            assert start.prompt_id
            labelling.note_use(tx, start.prompt_id)
            drawn.append(start.content)
        assert sorted(drawn) == ["one", "three", "two"]
        assert labelling.add_writing_prompts(tx, "free", ["one", "x" * 9000]) == 2
        assert labelling.add_writing_prompts(tx, "free", ["x" * 8500]) == 0
        again = {labelling.draw_start(tx, random.Random(seed), topic="refuse").content for seed in range(9)}
        assert again <= set(drawn)
        labelling.note_use(tx, start.prompt_id)
        for seed in range(9):
            assert labelling.draw_start(tx, random.Random(seed), topic="refuse").content != start.content
        assert labelling.draw_start(tx, random.Random(0), topic="ambiguous").prompt_id is None


def test_topics_come_by_the_operators_mix(store: Store) -> None:
    with store.write() as tx:
        mix = {"ambiguous": 3.0, "free": 1.0, "refuse": 0.0}
        labelling.change_labelling_settings(tx, LabellingSettings(topics=mix))
        counted = Counter(labelling.draw_start(tx, random.Random(seed)).topic for seed in range(200))
    assert set(counted) == {"ambiguous", "free"}
    assert 2 < counted["ambiguous"] / counted["free"] < 4.5
