from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

from tutelage.errors import DataError
from tutelage.moderation.corpus import (
    HELD_OUT,
    SEEDS,
    TRAINED,
    Source,
    clean,
    expanded,
    labelled_here,
    means,
    read,
    split_of,
    without_repeats,
    written,
)
from tutelage.moderation.sources import CHAT, LABELLED, UNSEEN


def rows(path: Path):
    for text, label in json.loads(path.read_text(encoding="utf-8")):
        yield text, label, text


@pytest.fixture
def source(tmp_path: Path) -> Source:
    content = [
        ["one", "bad"],
        ["two", "good"],
        ["one", "bad"],
        ["three", "unclear"],
        ["about a child", "bad"],
        ["a child", "good"],
    ]
    (tmp_path / "set.json").write_text(json.dumps(content), encoding="utf-8")
    return Source(
        "set",
        "set.json",
        rows,
        {"bad": means("hate", absent=("sexual",)), "good": means(absent=TRAINED)},
        weight=3.0,
    )


def test_rows_carry_what_their_label_means(source: Source, tmp_path: Path) -> None:
    examples = list(read(source, tmp_path))
    assert [example.text for example in examples] == ["one", "two", "a child"]
    found = {example.text: example for example in examples}
    assert found["one"].labels == {"hate": True, "sexual": False}
    assert (found["one"].source, found["one"].weight) == ("set", 3.0)
    assert found["two"].benign
    assert not found["one"].benign


def test_a_limit_bounds_the_rows_of_a_label(tmp_path: Path) -> None:
    content = [[f"text {number}", "bad"] for number in range(20)]
    (tmp_path / "set.json").write_text(json.dumps(content), encoding="utf-8")
    source = Source("set", "set.json", rows, {"bad": means("hate")}, limit={"bad": 5})
    assert len(list(read(source, tmp_path))) == 5


def test_a_set_that_is_not_there_or_has_another_form_is_an_error_with_its_path(
    source: Source, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=r"set\.json"):
        list(read(source, tmp_path / "elsewhere"))
    (tmp_path / "set.json").write_text("[[1", encoding="utf-8")
    with pytest.raises(DataError, match=r"set\.json"):
        list(read(source, tmp_path))


def test_every_row_has_one_split_for_good() -> None:
    counts = Counter(split_of(str(number)) for number in range(4000))
    assert split_of("How do I bake bread?") == split_of("  How do I bake bread? ")
    assert {name: round(count / 4000, 1) for name, count in counts.items()} == pytest.approx(
        {"train": 0.7, "calibration": 0.15, "test": 0.15}, abs=0.06
    )


def test_marks_of_the_place_are_removed() -> None:
    assert clean("RT @bob: a &amp; b [URL]\n c") == "@bob: a & b c"


def test_patterns_stand_for_all_their_sentences() -> None:
    slots = {"who": ["you", "him"], "what": ["tea"]}
    assert expanded("{what} for {who}", slots) == ["tea for you", "tea for him"]
    assert expanded("plain", slots) == ["plain"]


def test_of_very_many_sentences_some_from_all_over_are_taken() -> None:
    slots = {"a": [str(number) for number in range(20)], "b": [str(number) for number in range(20)]}
    found = expanded("{a} {b}", slots)
    assert len(found) == len(set(found)) == 30
    assert {text.split()[0] for text in found} == set(slots["a"])


def test_a_pattern_stays_in_one_split() -> None:
    splits = {example.split for example in written() if example.text.endswith("kill ants in the kitchen")}
    assert splits == {split_of("{ask} kill {pest}")}


def test_of_repeated_texts_the_first_stays() -> None:
    examples = list(written(HELD_OUT))
    assert without_repeats([*examples, *written(HELD_OUT)]) == examples


def test_no_held_out_sentence_is_trained_on() -> None:
    trained = {example.text.casefold() for example in written(SEEDS)}
    shared = [example.text for example in written(HELD_OUT) if example.text.casefold() in trained]
    assert shared == []


def test_the_written_sentences_teach_every_category_in_both_directions() -> None:
    examples = list(written())
    for name in TRAINED:
        assert any(example.labels[name] for example in examples)
    harmless = [example.text for example in examples if example.benign]
    assert "how do I kill a Python process" in harmless
    assert any("\u4e00" <= letter <= "\u9fff" for text in harmless for letter in text)


def test_own_labels_are_read_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(
        '{"text": "so rude", "categories": ["harassment"]}\n{"text": "fine", "categories": []}\n',
        encoding="utf-8",
    )
    rude, fine = labelled_here(path)
    assert rude.labels["harassment"]
    assert not rude.labels["hate"]
    assert fine.benign


@pytest.mark.parametrize(
    "line",
    [
        "{",
        "[]",
        '{"text": "x"}',
        '{"text": 1, "categories": []}',
        '{"text": "x", "categories": ["rudeness"]}',
        '{"text": "x", "categories": ["sexual/minors"]}',
        '{"text": "x", "categories": 3}',
        '{"text": "x", "categories": "hate"}',
        '{"text": "x", "categories": [[]]}',
    ],
)
def test_a_wrong_own_label_is_an_error_with_its_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text(f'{{"text": "fine", "categories": []}}\n{line}\n', encoding="utf-8")
    with pytest.raises(DataError) as caught:
        list(labelled_here(path))
    assert caught.value.line == 2


def test_labels_that_are_no_text_or_no_file_are_an_error_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "labels.jsonl").write_bytes(b'{"text": "caf\xe9", "categories": []}\n')
    with pytest.raises(DataError, match="not JSON") as caught:
        list(labelled_here(tmp_path / "labels.jsonl"))
    assert caught.value.line == 1
    for path in (tmp_path / "none.jsonl", tmp_path):
        with pytest.raises(DataError, match="cannot be read") as caught:
            list(labelled_here(path))
        assert caught.value.path == path


def test_no_label_of_any_set_speaks_of_what_is_never_taught() -> None:
    for source in (*LABELLED, *CHAT, *UNSEEN):
        for labels in source.meaning.values():
            assert labels
            assert set(labels) <= set(TRAINED)


def test_names_of_sets_are_unique() -> None:
    names = [source.name for source in (*LABELLED, *CHAT, *UNSEEN)]
    assert len(names) == len(set(names))
