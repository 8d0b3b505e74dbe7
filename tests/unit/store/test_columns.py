from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

from hypothesis import given
from hypothesis import strategies as st

from tutelage.errors import Sentence, Unavailable
from tutelage.store import Store
from tutelage.store.columns import clean
from tutelage.store.ids import now
from tutelage.store.tables import OperatorLink, Run, User

ANY_TEXT = st.text(st.characters(), max_size=40)


@given(ANY_TEXT)
def test_clean_text_can_be_stored_and_sent(text: str) -> None:
    cleaned = clean(text)
    assert "\x00" not in cleaned
    cleaned.encode()
    assert clean(cleaned) == cleaned


@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00")))
def test_good_text_stays_as_it_is(text: str) -> None:
    assert clean(text) == text


def test_json_is_cleaned_in_depth() -> None:
    assert clean({"a\x00": ["\ud800", {"b": ("\x00c", 1, None)}]}) == {"a": ["\ufffd", {"b": ["c", 1, None]}]}


def test_memory_and_database_agree(store: Store) -> None:
    with store.write() as tx:
        row = User(role="guest", name="a\x00b\udfff")
        tx.add(row)
    assert row.name == "ab\ufffd"
    with store.read() as tx:
        assert tx.get_one(User, row.id).name == "ab\ufffd"


def test_looking_up_what_cannot_be_stored_finds_nothing(store: Store) -> None:
    with store.read() as tx:
        assert tx.get(User, "\ud800") is None


def test_times_come_back_in_utc(store: Store) -> None:
    east = datetime(2030, 1, 1, 8, tzinfo=timezone(timedelta(hours=8)))
    with store.write() as tx:
        tx.add(OperatorLink(token_hash="x", created=east, expires=now()))
    with store.read() as tx:
        assert tx.get_one(OperatorLink, "x").created == datetime(2030, 1, 1, tzinfo=UTC)
        assert tx.get_one(OperatorLink, "x").created.tzinfo is UTC


def test_a_sentence_stays_one_in_its_row_and_text_from_before_is_read(store: Store) -> None:
    with store.write() as tx:
        died = Unavailable(Sentence("{count} workers died over it", count=3), hint="resume it")
        for number, words in enumerate(
            [died.sentence, Sentence("{name}", name="a\x00b"), "plain {so}", None]
        ):
            tx.add(Run(name=f"round-{number}", kind="improve", config={}, error=words))
    with store.read() as tx:
        rows = {run.name: run.error for run in tx.query(Run)}
    assert rows["round-0"] == "3 workers died over it\nhint: resume it"
    assert [rows[f"round-{number}"] for number in (1, 2, 3)] == ["ab", "plain {so}", None]
    assert isinstance(rows["round-0"], Sentence)
    assert rows["round-0"].told(lambda text, **values: text.upper()) == "{MESSAGE}\nHINT: {HINT}"
