"""People find their own words, in any language, and nobody else's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import text

from tutelage.dialogue import Dialogue, Message
from tutelage.store import Store, bin, dialogues, imports, search

Chat = Callable[..., list]


def titles(store: Store, owner_id: str, query: str) -> list[str]:
    with store.read() as tx:
        return [found.excerpt for found in search.search(tx, owner_id, query)]


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
    assert titles(store, cast.reader, "treasure") == []
    with store.write() as tx:
        dialogues.finish_answer(
            tx, answer.id, content="a whole treasure", status="complete", finish_reason="stop"
        )
    assert titles(store, cast.reader, "treasure") == ["a whole treasure"]


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
