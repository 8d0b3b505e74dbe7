"""People find their own words, in any language, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tutelage.dialogue import Dialogue, Message
from tutelage.store import Store, accounts, bin, dialogues, imports, migrations, search

Chat = Callable[..., list]


def titles(store: Store, owner_id: str, query: str, limit: int = 30) -> list[str]:
    with store.read() as tx:
        return [found.excerpt for found in search.search(tx, owner_id, query, limit=limit)]


@pytest.mark.parametrize(
    "query", ["rainbow", "RAINBOW", "ainbo", "colours of", "of rainbow", "雨後的彩虹", "彩虹", "虹", "a ra"]
)
def test_words_are_found_whatever_their_language_case_and_length(
    store: Store, cast: SimpleNamespace, chat: Chat, query: str
) -> None:
    chat(cast.reader, "The colours of a rainbow", "紅橙黃綠，雨後的彩虹")
    chat(cast.reader, "Something else", "Nothing")
    assert len(titles(store, cast.reader, query)) == 1
    assert titles(store, cast.private, query) == []


def test_all_words_stand_in_one_message_or_in_the_title(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "alpha beta", "gamma")
    assert titles(store, cast.reader, "beta alpha")
    assert titles(store, cast.reader, "alpha gamma") == []
    with store.write() as tx:
        dialogues.rename_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader, title="Greek letters")
    with store.read() as tx:
        [found] = search.search(tx, cast.reader, "greek")
        assert (found.message_id, found.excerpt) == (None, "")
        [found] = search.search(tx, cast.reader, "gamma")
        assert (found.message_id, found.excerpt) == (rows[1].id, "gamma")


@pytest.mark.parametrize(
    "query", ["", "  ", '"', "'", "%", "_", "a*", "NEAR(", "content:x", "-", '""""', "\\"]
)
def test_marks_are_only_letters(store: Store, cast: SimpleNamespace, chat: Chat, query: str) -> None:
    chat(cast.reader, "plain words", "nothing more")
    assert titles(store, cast.reader, query) == []


@pytest.mark.parametrize("query", ["/", "a/", "%", "5%", "_b"])
def test_marks_in_short_words_are_found_as_they_stand(
    store: Store, cast: SimpleNamespace, chat: Chat, query: str
) -> None:
    chat(cast.reader, "a/ 5% _b", "no marks here: ab 56")
    [found] = titles(store, cast.reader, query)
    assert found == "a/ 5% _b"


def test_a_list_holds_the_newest_dialogues_and_each_once(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = [chat(cast.reader, f"treasure {number}", "treasure too")[0] for number in range(5)]
    chat(cast.private, "treasure of another", "x")
    with store.read() as tx:
        found = search.search(tx, cast.reader, "treasure", limit=3)
    assert [hit.dialogue.id for hit in found] == [row.dialogue_id for row in reversed(rows[2:])]
    assert {hit.excerpt for hit in found} == {"treasure too"}


@pytest.mark.parametrize(("hits", "looked"), [(100, 1000), (100, 1), (3, 1000), (3, 1)])
def test_of_many_dialogues_those_changed_last_are_found_however_they_are_looked_for(
    store: Store, cast: SimpleNamespace, chat: Chat, monkeypatch: pytest.MonkeyPatch, hits: int, looked: int
) -> None:
    monkeypatch.setattr(search, "MOST_HITS", hits)
    monkeypatch.setattr(search, "FREQUENT", hits)
    monkeypatch.setattr(search, "LOOKED", looked)
    rows = [chat(cast.reader, f"Treasure {number}", "no", "TREASURE again")[2] for number in range(6)]
    with store.write() as tx:
        for age, row in enumerate(rows):  # as in an import, the first are the newest
            dialogue = dialogues.get_dialogue(tx, row.dialogue_id, owner_id=cast.reader)
            dialogue.updated = datetime(2020, 1, 9 - age, tzinfo=UTC)
    with store.read() as tx:
        found = [hit.message_id for hit in search.search(tx, cast.reader, "treasure", limit=2)]
    # Where neither way sees all six, the last three messages are all that is known.
    known = rows if hits == 100 or looked == 1000 else rows[-2:]
    assert found == [row.id for row in known[:2]]


def test_of_short_words_alone_only_the_newest_messages_are_read(
    store: Store, cast: SimpleNamespace, chat: Chat, monkeypatch: pytest.MonkeyPatch
) -> None:
    chat(cast.reader, "ab", "old")
    chat(cast.reader, "a newer question", "an answer")
    assert titles(store, cast.reader, "ab") == ["ab"]
    monkeypatch.setattr(search, "MOST_READ", 2)
    monkeypatch.setattr(search, "LOOKED", 2)
    assert titles(store, cast.reader, "ab") == []


@pytest.mark.sqlite
def test_an_index_of_an_earlier_version_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(migrations, "HEAD", "0004")
    store = Store.open(tmp_path / "tutelage.db")
    owners = []
    with store.write() as tx:
        for name in ("first", "second"):
            owners.append(accounts.create_user(tx, name=name, password_hash="-", role="user").id)
            dialogue = dialogues.create_dialogue(tx, owners[-1])
            dialogues.add_message(
                tx,
                dialogue.id,
                parent_id=None,
                role="user",
                content=f"treasure of {name}",
                author_kind="human",
            )
    store.close()
    monkeypatch.undo()
    store = Store.open(tmp_path / "tutelage.db")
    assert [titles(store, owner, "treasure") for owner in owners] == [
        ["treasure of first"],
        ["treasure of second"],
    ]
    with store.write() as tx:
        dialogue = dialogues.create_dialogue(tx, owners[0])
        dialogues.add_message(
            tx, dialogue.id, parent_id=None, role="user", content="more treasure", author_kind="human"
        )
    assert titles(store, owners[0], "treasure") == ["more treasure", "treasure of first"]
    store.close()


@pytest.mark.sqlite
def test_parts_of_the_index_that_are_alike_are_merged(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    for number in range(3):
        chat(cast.reader, f"treasure {number}")
    found = titles(store, cast.reader, "treasure")
    with store.write() as tx:
        parts = text("SELECT count(DISTINCT segid) FROM search_texts_idx")
        assert tx.scalar(parts) == 3
        while search.tidy(tx):
            pass
        assert tx.scalar(parts) == 1
    assert titles(store, cast.reader, "treasure") == found


@settings(max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(query=st.text(max_size=12))
def test_no_query_is_an_error(store: Store, cast: SimpleNamespace, query: str) -> None:
    titles(store, cast.reader, query)


def test_hidden_unfinished_temporary_and_binned_texts_are_not_found(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    chat(cast.reader, "question one", "blocked treasure", status="blocked")
    chat(cast.reader, "temporary treasure", "x", temporary=True)
    binned = chat(cast.reader, "binned treasure", "x")
    with store.write() as tx:
        bin.bin_dialogue(tx, binned[0].dialogue_id, owner_id=cast.reader)
        dialogue = dialogues.create_dialogue(tx, cast.reader)
        question = dialogues.add_message(
            tx, dialogue.id, parent_id=None, role="user", content="question two", author_kind="human"
        )
        answer = dialogues.start_answer(
            tx, dialogue.id, parent_id=question.id, model_version="v1", sampling={}
        )
        dialogues.flush_answer(tx, answer.id, content="half a treasure")
        dialogues.add_message(
            tx,
            dialogues.create_dialogue(tx, cast.reader).id,
            parent_id=None,
            role="system",
            content="system treasure",
            author_kind="human",
        )
    for limit in (1, 30):  # a list that is full ends a search early
        assert titles(store, cast.reader, "treasure", limit) == []
    with store.write() as tx:
        dialogues.finish_answer(
            tx, answer.id, content="a whole treasure", status="complete", finish_reason="stop"
        )
    assert titles(store, cast.reader, "treasure") == ["a whole treasure"]


@pytest.mark.sqlite
def test_the_index_forgets_with_the_dialogue_and_never_holds_imported_files(
    store: Store, cast: SimpleNamespace, chat: Chat
) -> None:
    rows = chat(cast.reader, "to be deleted", "gone")
    with store.write() as tx:
        imports.import_dialogue(tx, Dialogue((Message("user", "file"), Message("assistant", "text"))))
        count = text("SELECT count(*) FROM search_texts")
        assert tx.scalar(count) == 2
        dialogues.delete_dialogue(tx, rows[0].dialogue_id, owner_id=cast.reader)
        assert tx.scalar(count) == 0


def test_an_excerpt_surrounds_what_was_found() -> None:
    long = "before " * 30 + "NEEDLE\n\nin a line " + "after " * 30
    piece = search.excerpt(long, ["needle"])
    assert "NEEDLE in a line" in piece
    assert piece.startswith("…")
    assert piece.endswith("…")
    assert len(piece) < 150


def test_letters_without_case_are_compared_as_they_are() -> None:
    words = {
        "公園": "LIKE",
        "2026": "LIKE",
        "%": "LIKE",
        "a": "ILIKE",
        "公A": "ILIKE",
        "ß": "ILIKE",
        "Й": "ILIKE",
    }
    assert {word: search._like(word) for word in words} == words
