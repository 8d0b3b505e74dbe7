from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tutelage.dialogue import Comparison, Dialogue, Message, Preference, Role
from tutelage.errors import DataError
from tutelage.store import Store, accounts, dialogues, export, feedback, imports, labelling, tables

Chat = Callable[..., list[tables.Message]]
READERS: dict[str, Callable[[Path], Iterator[Any]]] = {
    "demonstrations": export.read_demonstrations,
    "comparisons": export.read_comparisons,
    "prompts": export.read_prompts,
}
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), min_size=1).filter(
    str.strip
)


def said(*texts: str) -> tuple[Message, ...]:
    roles: tuple[Role, Role] = ("user", "assistant")
    return tuple(Message(roles[index % 2], text) for index, text in enumerate(texts))


def texts(items: Iterator[Dialogue]) -> list[tuple[str, ...]]:
    return [(item.source, *(message.content for message in item.messages)) for item in items]


def add(store: Store, *items: Dialogue | Comparison, **rest: Any) -> None:
    with store.write() as tx:
        for item in items:
            if isinstance(item, Dialogue):
                imports.import_dialogue(tx, item, **rest)
            else:
                imports.import_comparison(tx, item)


def test_imported_dialogues_are_demonstrations_when_they_are_marked(store: Store) -> None:
    add(store, Dialogue(said("q", "a", "q2"), source="oasst", author="7"), Dialogue(said("only"), source="x"))
    add(store, Dialogue(said("bad", "idea"), source="oasst"), demonstration=False)
    with store.read() as tx:
        [found] = export.demonstrations(tx)
        assert (found.messages, found.source, found.author) == (said("q", "a"), "oasst", "7")
        assert texts(export.prompts(tx)) == [
            ("oasst", "q"),
            ("oasst", "q", "a", "q2"),
            ("x", "only"),
            ("oasst", "bad"),
        ]


def test_written_demonstrations_count_once_they_are_handed_in(store: Store, cast: SimpleNamespace) -> None:
    turns = [{"role": message.role, "content": message.content} for message in said("q", "a")]
    with store.write() as tx:
        for status in ("draft", "submitted", "accepted"):
            kept = [turns[0], turns[1] | {"content": status}]
            labelling.save_demonstration(tx, author_id=cast.trainer, messages=kept, status=status)
        back = labelling.save_demonstration(tx, author_id=cast.trainer, messages=turns, status="submitted")
        labelling.review_demonstration(tx, back.id, decision="sent_back", by=cast.second)
        assert texts(export.demonstrations(tx)) == [
            ("written", "q", "submitted"),
            ("written", "q", "accepted"),
        ]


def test_a_better_ending_is_used_while_its_dialogue_may_be(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    message = chat(cast.reader, "q", "a")[1]
    turns = [{"role": message.role, "content": message.content} for message in said("q", "b")]
    with store.write() as tx:
        labelling.save_demonstration(
            tx, author_id=cast.trainer, messages=turns, status="submitted", message_id=message.id
        )
        assert texts(export.demonstrations(tx)) == [("written", "q", "b")]
        accounts.set_consent(tx, cast.reader, False)
        assert texts(export.demonstrations(tx)) == []
        accounts.set_consent(tx, cast.reader, True)
        dialogues.delete_dialogue(tx, message.dialogue_id, owner_id=cast.reader)
        assert texts(export.demonstrations(tx)) == []


@pytest.mark.parametrize(("owner", "temporary"), [("reader", False), ("private", False), ("reader", True)])
def test_corrections_and_prompts_need_consent(
    store: Store, cast: SimpleNamespace, chat: Chat, owner: str, temporary: bool
) -> None:
    owner_id = getattr(cast, owner)
    rows = chat(owner_id, "q", "a", "q2", "a2", temporary=temporary)
    with store.write() as tx:
        feedback.rate(tx, message_id=rows[1].id, rater_id=owner_id, verdict="down")
        feedback.rate(tx, message_id=rows[3].id, rater_id=owner_id, verdict="down", ideal="ideal")
        unwilling = feedback.rate(tx, message_id=rows[1].id, rater_id=owner_id, verdict="down", ideal="x")
        unwilling.consent = False
    allowed = owner == "reader" and not temporary
    with store.read() as tx:
        corrections, prompts = texts(export.demonstrations(tx)), texts(export.prompts(tx))
    assert corrections == ([("correction", "q", "a", "q2", "ideal")] if allowed else [])
    assert prompts == ([("chat", "q"), ("chat", "q", "a", "q2")] if allowed else [])


def test_nothing_blocked_or_broken_off_is_used(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    for status in ("blocked", "interrupted"):
        rows = chat(cast.reader, status, "a", "q2", "a2", status=status)
        with store.write() as tx:
            feedback.rate(tx, message_id=rows[1].id, rater_id=cast.reader, verdict="down", ideal="first")
            feedback.rate(tx, message_id=rows[3].id, rater_id=cast.reader, verdict="down", ideal="second")
    with store.write() as tx:
        dialogue_id = dialogues.create_dialogue(tx, cast.reader).id
        dialogues.add_message(
            tx,
            dialogue_id,
            parent_id=None,
            role="user",
            content="x",
            author_kind="human",
            status="blocked",
        )
    with store.read() as tx:
        assert texts(export.prompts(tx)) == [("chat", "blocked"), ("chat", "interrupted")]
        assert sorted(texts(export.demonstrations(tx))) == [
            ("correction", "blocked", "first"),
            ("correction", "interrupted", "first"),
        ]


def test_a_ranking_becomes_a_comparison_with_ties(
    store: Store, desk: Any, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "q", "a")
    ranking = desk.rank(cast.trainer, [["a"], ["b", "c"]])
    with store.read() as tx:
        [found] = export.comparisons(tx)
    assert (found.id, found.source, found.author) == (ranking.id, "ranking", cast.trainer)
    assert found.prompt == said("q")
    names = found.candidates
    assert {(names[pair.better], names[pair.worse]) for pair in found.preferences if not pair.tie} == {
        ("a", "b"),
        ("a", "c"),
    }
    assert [{names[pair.better], names[pair.worse]} for pair in found.preferences if pair.tie] == [{"b", "c"}]
    with store.write() as tx:
        accounts.set_consent(tx, cast.reader, False)
        assert [*export.comparisons(tx)] == []


def test_a_correction_is_better_than_what_it_corrects(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    for status, ideal in (
        ("complete", "ideal"),
        ("interrupted", "whole"),
        ("complete", "a"),
        ("complete", " "),
    ):
        message = chat(cast.reader, "q", "a", status=status)[1]
        with store.write() as tx:
            feedback.rate(tx, message_id=message.id, rater_id=cast.reader, verdict="down", ideal=ideal)
    with store.read() as tx:
        [found] = export.comparisons(tx)
        assert (found.candidates, found.preferences) == (("ideal", "a"), (Preference(0, 1),))
        assert (found.prompt, found.source, found.author) == (said("q"), "correction", cast.reader)
        assert [*export.comparisons(tx, sources={"thumbs"})] == []


def test_thumbs_judge_answers_to_one_question(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    question, first = chat(cast.reader, "q", "a0")
    elsewhere = chat(cast.reader, "other", "z")[1]
    with store.write() as tx:
        feedback.rate(tx, message_id=elsewhere.id, rater_id=cast.reader, verdict="down")
        answers = [first]
        for number in range(1, 6):
            row = dialogues.start_answer(
                tx, question.dialogue_id, parent_id=question.id, model_version="v1", sampling={}
            )
            status: Any = "interrupted" if number == 5 else "complete"
            dialogues.finish_answer(tx, row.id, content=f"a{number}", status=status, finish_reason="stop")
            answers.append(row)
        for row, verdict in zip(answers, ["up", "down", "up", "down", None, "up"], strict=True):
            if verdict:
                feedback.rate(tx, message_id=row.id, rater_id=cast.reader, verdict=verdict)
        [found] = export.comparisons(tx)
        assert (found.prompt, found.source, found.author) == (said("q"), "thumbs", cast.reader)
        names = found.candidates
        assert sorted(names) == ["a0", "a1", "a2", "a3"]
        assert {(names[pair.better], names[pair.worse]) for pair in found.preferences} == {
            ("a0", "a1"),
            ("a0", "a3"),
            ("a2", "a1"),
            ("a2", "a3"),
        }
        assert not any(pair.tie for pair in found.preferences)
        accounts.set_consent(tx, cast.reader, False)
        assert [*export.comparisons(tx)] == []


def test_pairs_of_equal_texts_are_left_out(store: Store) -> None:
    add(store, Comparison.from_ranking(said("q"), ["a", "a", "b"], [[0], [1], [2]], source="s"))
    add(store, Comparison.from_ranking(said("q"), ["a", "a"], [[0], [1]], source="s"))
    with store.read() as tx:
        [found] = export.comparisons(tx)
    assert found.preferences == (Preference(0, 2, gap=2), Preference(1, 2))


def test_imported_comparisons_are_prompts_too_and_each_prompt_comes_once(store: Store) -> None:
    add(store, Dialogue(said("q", "a"), source="s"), Comparison(said("q"), ("a", "b"), (), source="t"))
    add(store, Comparison(said("other"), ("a", "b"), (Preference(0, 1),), source="t"))
    with store.read() as tx:
        assert texts(export.prompts(tx)) == [("s", "q"), ("t", "other")]
        assert texts(export.prompts(tx, sources={"t"})) == [("t", "q"), ("t", "other")]


def test_sources_choose(store: Store, cast: SimpleNamespace, chat: Chat) -> None:
    add(store, *(Dialogue(said(name, "a"), source=name) for name in ("one", "two")))
    rows = chat(cast.reader, "chat", "a")
    with store.write() as tx:
        feedback.rate(tx, message_id=rows[1].id, rater_id=cast.reader, verdict="down", ideal="b")
    with store.read() as tx:
        for sources, demonstrations, prompts in (
            ({"one"}, ["one"], ["one"]),
            ({"two", "correction"}, ["two", "correction"], ["two"]),
            ({"chat"}, [], ["chat"]),
            (set(), [], []),
        ):
            assert [item.source for item in export.demonstrations(tx, sources=sources)] == demonstrations
            assert [item.source for item in export.prompts(tx, sources=sources)] == prompts


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    dialogue_texts=st.lists(st.lists(TEXT, min_size=1, max_size=4), min_size=1, max_size=4, unique_by=tuple),
    candidates=st.lists(TEXT, min_size=2, max_size=5, unique=True),
    seed=st.integers(0, 99),
)
def test_a_snapshot_is_read_back_and_its_hash_knows_no_order(
    make_store: Callable[[], Store],
    tmp_path_factory: pytest.TempPathFactory,
    dialogue_texts: list[list[str]],
    candidates: list[str],
    seed: int,
) -> None:
    items: list[Dialogue | Comparison] = [
        Dialogue(said(*some), source=f"s{len(some)}") for some in dialogue_texts
    ]
    groups = [[index] for index in range(len(candidates))]
    items.append(Comparison.from_ranking(said("q"), candidates, groups, source="c"))
    items += [Dialogue(said("q", "a"), source=source, author=source) for source in ("b", "d")]
    found = []
    for order in (items, random.Random(seed).sample(items, len(items))):
        store, home = make_store(), tmp_path_factory.mktemp("home")
        add(store, *order)
        found.append(export.snapshot(store, home))
        with store.read() as tx:
            written = {name: {item.id: item for item in getattr(export, name)(tx)} for name in READERS}
        for name, read in READERS.items():
            back = [*read(found[-1].path)]
            assert {item.id: replace(item, group="") for item in back} == written[name]
            assert sum(found[-1].counts[name].values()) == len(back)
    assert found[0].hash == found[1].hash
    add(store, Dialogue(said("one", "more"), source="new"))
    assert export.snapshot(store, home).hash != found[0].hash


@pytest.fixture
def taken(store: Store, tmp_path: Path) -> export.Snapshot:
    add(store, *(Dialogue(said(f"q{number}", "a"), source="s") for number in range(3)))
    add(store, Comparison.from_ranking(said("q"), ["a", "b"], [[0], [1]], source="t"))
    return export.snapshot(store, tmp_path)


def test_a_snapshot_says_what_is_in_it(store: Store, taken: export.Snapshot, tmp_path: Path) -> None:
    assert taken.path == tmp_path / "snapshots" / taken.hash
    assert taken.counts == {
        "demonstrations": {"s": 3},
        "comparisons": {"t": 1},
        "prompts": {"s": 3, "t": 1},
    }
    manifest = json.loads((taken.path / "manifest.json").read_text())
    assert (manifest["hash"], manifest["counts"], manifest["sources"]) == (taken.hash, taken.counts, None)
    with store.read() as tx:
        [row] = export.list_snapshots(tx)
    assert (row.id, row.hash, row.path, row.counts) == (taken.id, taken.hash, str(taken.path), taken.counts)


def test_the_same_rows_are_the_same_snapshot_even_for_many_at_once(
    store: Store, taken: export.Snapshot, tmp_path: Path
) -> None:
    before = (taken.path / "manifest.json").stat().st_mtime_ns
    with ThreadPoolExecutor(4) as pool:
        again = list(pool.map(lambda _: export.snapshot(store, tmp_path), range(8)))
    assert {snapshot.id for snapshot in again} == {taken.id}
    assert (taken.path / "manifest.json").stat().st_mtime_ns == before
    with ThreadPoolExecutor(4) as pool:
        elsewhere = list(pool.map(lambda _: export.snapshot(store, tmp_path / "new"), range(8)))
    assert {snapshot.hash for snapshot in elsewhere} == {taken.hash}
    assert [entry.name for entry in (tmp_path / "new" / "snapshots").iterdir()] == [taken.hash]


def test_a_place_that_cannot_be_written_is_an_error(
    store: Store, taken: export.Snapshot, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match="written"):
        export.snapshot(store, tmp_path / "file")


def test_nothing_to_learn_from_is_an_error(store: Store, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nothing"):
        export.snapshot(store, tmp_path)
    assert [*tmp_path.iterdir()] == []


BAD_LINES = {
    "demonstrations": [
        "{",
        "[]",
        '{"id":"","source":"","author":null}',
        '{"id":"","source":"","author":null,"messages":[]}',
        '{"id":"","source":"","author":null,"messages":[{"role":"robot","content":"x"}]}',
        '{"id":"","source":"","author":null,"messages":[{"role":"user","content":1}]}',
        '{"id":"","source":"","author":null,"messages":[{"role":"user","content":"q"}],"group":"ours"}',
        "\udcff",
    ],
    "comparisons": [
        '{"id":"","source":"","author":null,"prompt":[{"role":"user","content":"q"}],"candidates":["a"],'
        '"preferences":[{"better":0,"worse":1}]}',
        '{"id":"","source":"","author":null,"prompt":[{"role":"user","content":"q"}],"candidates":["a"],'
        '"preferences":[{"best":0}]}',
    ],
}


@pytest.mark.parametrize(
    ("name", "line"), [(name, line) for name, lines in BAD_LINES.items() for line in lines]
)
def test_a_bad_line_is_named(taken: export.Snapshot, name: str, line: str) -> None:
    file = taken.path / f"{name}.jsonl"
    good = file.read_bytes().splitlines()[0]
    file.write_bytes(good + b"\n" + line.encode(errors="surrogateescape") + b"\n")
    with pytest.raises(DataError) as caught:
        list(READERS[name](taken.path))
    assert caught.value.where == f"{file}:2"


@pytest.mark.parametrize("name", READERS)
def test_a_changed_file_is_noticed(taken: export.Snapshot, name: str) -> None:
    file = taken.path / f"{name}.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(DataError, match="changed"):
        list(READERS[name](taken.path))
    file.unlink()
    with pytest.raises(DataError, match="cannot be read"):
        list(READERS[name](taken.path))


@pytest.mark.parametrize("content", [None, "{", "[]", "{}", '{"files": {}}'])
def test_a_folder_without_a_good_manifest_is_refused_at_once(
    taken: export.Snapshot, content: str | None
) -> None:
    manifest = taken.path / "manifest.json"
    manifest.unlink()
    if content is not None:
        manifest.write_text(content)
    with pytest.raises(DataError) as caught:
        export.read_prompts(taken.path)
    assert caught.value.where == str(manifest)
