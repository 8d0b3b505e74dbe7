from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.dialogue import Dialogue, Message
from tutelage.store import Store, accounts, dialogues, export, feedback, imports, labelling, picks, tables
from tutelage.store.export import Snapshot
from tutelage.store.privacy import withdrawn

Chat = Callable[..., list[tables.Message]]


@pytest.fixture
def messages(store: Store, desk: Any, cast: SimpleNamespace, chat: Chat) -> list[tables.Message]:
    """A chat out of which all that can be learnt was made, beside an imported dialogue."""
    rows = chat(cast.reader, "secret question", "answer")
    turns = [{"role": "user", "content": "secret"}, {"role": "assistant", "content": "better"}]
    with store.write() as tx:
        imported = Dialogue((Message("user", "q"), Message("assistant", "a")), source="open")
        imports.import_dialogue(tx, imported)
        feedback.rate(tx, message_id=rows[1].id, rater_id=cast.reader, verdict="down", ideal="secret ideal")
        labelling.save_demonstration(
            tx, author_id=cast.trainer, messages=turns, status="submitted", message_id=rows[1].id
        )
    desk.rank(cast.trainer, [["answer"], ["secret sample"]])
    return rows


def lines(snapshot: Snapshot) -> Iterator[str]:
    for read in (export.read_demonstrations, export.read_comparisons, export.read_prompts):
        yield from map(str, read(snapshot.path))


def forgotten(snapshot: Snapshot) -> int:
    manifest = json.loads((snapshot.path / "manifest.json").read_text())
    return int(manifest.get("forgotten", 0))


@pytest.mark.parametrize("way", ["delete one", "delete all", "delete person", "withdraw consent"])
def test_old_snapshots_lose_what_may_not_be_used_any_more(
    store: Store, cast: SimpleNamespace, tmp_path: Path, messages: list[tables.Message], way: str
) -> None:
    old = export.snapshot(store, tmp_path)
    assert sum("secret" in line for line in lines(old)) == 5
    with store.write() as tx:
        if way == "delete one":
            dialogues.delete_dialogue(tx, messages[0].dialogue_id, owner_id=cast.reader)
        elif way == "delete all":
            dialogues.delete_dialogues(tx, cast.reader)
        elif way == "delete person":
            accounts.delete_user(tx, cast.reader)
        else:
            accounts.set_consent(tx, cast.reader, False)
    new = export.snapshot(store, tmp_path)
    assert new.hash != old.hash
    assert sorted(lines(old)) == sorted(lines(new))
    assert not any("secret" in line for line in lines(old))
    assert (forgotten(old), forgotten(new)) == (5, 0)
    before = (old.path / "manifest.json").stat().st_mtime_ns
    export.snapshot(store, tmp_path)
    assert (old.path / "manifest.json").stat().st_mtime_ns == before
    assert not [entry for entry in old.path.parent.iterdir() if entry.name.startswith(".")]


def test_a_withdrawn_rating_leaves_with_its_correction_only(
    store: Store, cast: SimpleNamespace, tmp_path: Path, messages: list[tables.Message]
) -> None:
    old = export.snapshot(store, tmp_path)
    with store.write() as tx:
        feedback.withdraw(tx, message_id=messages[1].id, rater_id=cast.reader)
    export.snapshot(store, tmp_path)
    assert forgotten(old) == 2
    assert not any("ideal" in line for line in lines(old))


def test_a_judgement_without_consent_leaves_although_its_dialogue_may_be_used(
    store: Store, cast: SimpleNamespace, messages: list[tables.Message]
) -> None:
    with store.write() as tx:
        rating = feedback.ratings_for(tx, [messages[1].id], cast.reader)[messages[1].id]
        second = dialogues.add_message(
            tx,
            messages[0].dialogue_id,
            parent_id=messages[0].id,
            role="assistant",
            content="another",
            author_kind="model",
        )
        pick = picks.pick(
            tx, first_id=messages[1].id, second_id=second.id, rater_id=cast.reader, verdict="first"
        )
        assert withdrawn(tx) == set()
        rating.consent = pick.consent = False
        tx.flush()
        assert withdrawn(tx) == {rating.id, pick.id}
        rating.consent = pick.consent = True
        dialogues.delete_dialogue(tx, messages[0].dialogue_id, owner_id=cast.reader)
        assert withdrawn(tx) >= {rating.id, pick.id, second.id, messages[0].dialogue_id}


def test_what_is_allowed_again_makes_the_snapshot_whole(
    store: Store, cast: SimpleNamespace, tmp_path: Path, messages: list[tables.Message]
) -> None:
    old = export.snapshot(store, tmp_path)
    written = sorted(lines(old))
    for consent in (False, True):
        with store.write() as tx:
            accounts.set_consent(tx, cast.reader, consent)
        again = export.snapshot(store, tmp_path)
    assert (again.hash, again.id) == (old.hash, old.id)
    assert sorted(lines(old)) == written
    assert forgotten(old) == 0


def test_rows_the_store_never_knew_stay(
    make_store: Callable[[], Store], store: Store, tmp_path: Path, messages: list[tables.Message]
) -> None:
    old = export.snapshot(store, tmp_path)
    other = make_store()
    with other.write() as tx:
        imports.import_dialogue(
            tx, Dialogue((Message("user", "x"), Message("assistant", "y")), source="open")
        )
    export.snapshot(other, tmp_path)
    assert forgotten(old) == 0


def test_a_damaged_snapshot_does_not_stop_the_next(
    store: Store, cast: SimpleNamespace, tmp_path: Path, messages: list[tables.Message]
) -> None:
    old = export.snapshot(store, tmp_path)
    (old.path / "manifest.json").write_text("{")
    with store.write() as tx:
        dialogues.delete_dialogues(tx, cast.reader)
    assert export.snapshot(store, tmp_path).counts["demonstrations"] == {"open": 1}
