"""What only a server can do: refuse a password, lack an extension, go away; and a schema made all at once."""

from __future__ import annotations

import math
import sqlite3
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine, func, select, text

from tutelage.dialogue import Dialogue, Message
from tutelage.errors import ConfigError, Conflict, DataError, Unavailable
from tutelage.store import (
    Store,
    accounts,
    copying,
    dialogues,
    feedback,
    imports,
    migrations,
    postgres,
    restoring,
    runs,
    search,
    tables,
    waiting,
)

pytestmark = pytest.mark.postgres

SECRET = "correct horse"


@pytest.fixture
def role(postgres_server) -> Iterator[Callable[[str], str]]:
    """Makes a user by the rest of CREATE ROLE; gives their name. `locked` has to say their password."""
    made = []

    def make(name: str, options: str = "LOGIN") -> str:
        postgres_server.run(f"CREATE ROLE {name} {options}")
        made.append(name)
        return name

    yield make
    for name in made:
        postgres_server.run(f"DROP ROLE {name}")


def refusal(address: str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        Store.open(address)
    assert SECRET not in str(caught.value)
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


@pytest.fixture
def own_store(postgres_server) -> Iterator[Store]:
    """On a database whose tables may be changed."""
    opened = Store.open(postgres_server.create())
    yield opened
    opened.close()


def run(store: Store, statement: str) -> object:
    with store.write() as tx:
        return tx.execute(text(statement)).scalar()


def test_a_new_database_has_the_tables(store: Store) -> None:
    with store.read() as tx:
        context = MigrationContext.configure(tx.connection(), opts={"compare_type": True})
        found = compare_metadata(context, tables.Base.metadata)
        assert {change[0] for change in found} <= {"add_table"}
        assert {change[1].name for change in found} == {"search_owners", "search_rows"}
        assert tx.scalar(text("SELECT version_num FROM alembic_version")) == migrations.HEAD


def test_whole_messages_are_found_by_their_trigrams(store: Store) -> None:
    plan = "EXPLAIN SELECT id FROM messages WHERE content ILIKE '%rainbow%' AND status <> 'running'"
    with store.write() as tx:
        tx.execute(text("SET LOCAL enable_seqscan = off"))
        assert "ix_messages_content" in " ".join(tx.scalars(text(plan)))


def test_many_may_open_a_new_database_at_once(postgres_server) -> None:
    address = postgres_server.create()
    with ThreadPoolExecutor(6) as pool:
        opened = list(pool.map(lambda _: Store.open(address), range(6)))
    assert run(opened[0], "SELECT count(*) FROM alembic_version") == 1
    for store in opened:
        store.close()


def test_an_older_database_is_migrated_and_keeps_its_rows(
    own_store: Store, request: pytest.FixtureRequest
) -> None:
    with own_store.write() as tx:
        imports.import_dialogue(tx, Dialogue((Message("user", "a"), Message("assistant", "b")), source="s"))
    request.getfixturevalue("future")
    Store.open(own_store.place).close()
    assert run(own_store, "SELECT mood FROM dialogues") == "calm"
    assert run(own_store, "SELECT count(*) FROM messages") == 2


def test_a_step_that_fails_changes_nothing(own_store: Store, future: Path) -> None:
    with (future / "versions" / "9000_next.py").open("a") as step:
        step.write("    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        Store.open(own_store.place)
    column = "SELECT count(*) FROM information_schema.columns WHERE column_name = 'mood'"
    assert run(own_store, column) == 0
    assert run(own_store, "SELECT version_num FROM alembic_version") != "9000"


def test_a_newer_database_is_refused(own_store: Store) -> None:
    run(own_store, "UPDATE alembic_version SET version_num = '9999' RETURNING 1")
    with pytest.raises(DataError, match="newer") as caught:
        Store.open(own_store.place)
    assert "Upgrade" in caught.value.hint


@pytest.mark.parametrize("table", ["things (id int)", "alembic_version (version_num text)"])
def test_another_programs_database_is_refused(postgres_server, table: str) -> None:
    address = postgres_server.create()
    with create_engine(postgres._url(address)).begin() as connection:
        connection.execute(text(f"CREATE TABLE {table}"))
    with pytest.raises(DataError, match="another program"):
        Store.open(address)


def test_a_database_of_another_encoding_is_refused(postgres_server) -> None:
    with pytest.raises(DataError, match="SQL_ASCII") as caught:
        Store.open(postgres_server.create("ENCODING 'SQL_ASCII' LOCALE 'C' TEMPLATE template0"))
    assert "UTF8" in caught.value.hint


def test_a_wrong_password_is_refused_and_never_shown(postgres_server, role: Callable[..., str]) -> None:
    role("locked", "LOGIN PASSWORD 'something else'")
    address = postgres_server.address(user=f"locked:{SECRET.replace(' ', '%20')}")
    error = refusal(address)
    assert "password authentication failed" in error.message
    assert "***" in error.where


@pytest.mark.parametrize(
    "address",
    [
        f"postgresql://u:{SECRET}@127.0.0.1:1/d",
        f"postgres://u@127.0.0.1:1/d?connect_timeout=1&password={SECRET}",
    ],
)
def test_a_server_that_does_not_answer_is_told(address: str) -> None:
    assert "127.0.0.1" in refusal(address).message


def test_an_option_that_does_not_exist_is_told(postgres_server) -> None:
    assert "speed" in refusal(f"{postgres_server.address()}&speed=high").message


@pytest.mark.parametrize("address", [f"mysql://u:{SECRET}@h/d", "://", "postgresql://u@h:port/d"])
def test_what_is_no_address_is_told(address: str) -> None:
    assert refusal(address).where == "TUTELAGE_DATABASE_URL"


def test_a_database_that_is_not_there_is_told(postgres_server) -> None:
    assert '"nowhere" does not exist' in refusal(postgres_server.address("nowhere")).message


def test_missing_rights_are_told(postgres_server, role: Callable[..., str]) -> None:
    role("weak")
    name = postgres_server.create().partition("@/")[2].partition("?")[0]
    mine = postgres_server.address(name, user="weak")
    error = refusal(mine)
    assert "pg_trgm" in error.message
    assert "CREATE EXTENSION pg_trgm" in error.hint
    postgres_server.run("CREATE EXTENSION pg_trgm", name)
    error = refusal(mine)
    assert "permission denied" in error.message
    assert "OWNER TO" in error.hint


def test_a_missing_driver_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    error = refusal("postgresql://u@h/d")
    assert "tutelage[postgres]" in error.hint


def test_a_connection_that_is_lost_is_told_and_the_next_one_works(store: Store, postgres_server) -> None:
    end = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{store.place.database}'"
        " AND pid <> pg_backend_pid()"
    )
    count = select(func.count()).select_from(tables.User)

    def lose(session: Callable[[], Any]) -> None:
        with session() as tx:
            tx.scalar(count)
            postgres_server.run(end)
            tx.scalar(count)

    for session in (store.read, store.write):
        with pytest.raises(Unavailable, match="reached"):
            lose(session)
        with session() as tx:
            assert tx.scalar(count) == 0
    postgres_server.run(end)  # while nobody is at work
    with store.write() as tx:
        accounts.create_guest(tx)


def test_more_readers_than_connections_are_told_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BUSY_SECONDS", 0.05)
    monkeypatch.setattr(postgres, "CONNECTIONS", 4)
    small = Store.open(store.place)

    def read(more: int) -> None:
        with small.read() as tx:
            tx.scalar(select(tables.User.id))
            if more:
                read(more - 1)

    read(3)
    with pytest.raises(Unavailable, match="busy"):
        read(4)
    small.close()


def test_numbers_that_are_none_are_kept_as_nothing(store: Store) -> None:
    with store.write() as tx:
        row = runs.create_run(tx, kind="sft", config={})
        runs.update_run(tx, row.id, status="running", metrics={"loss": math.nan, "steps": [1.5, -math.inf]})
    with store.read() as tx:
        assert runs.get_run(tx, row.id).metrics == {"loss": None, "steps": [1.5, None]}


def test_a_backup_is_a_file_with_every_row(
    store: Store, cast: SimpleNamespace, chat: Callable[..., list[tables.Message]], tmp_path: Path
) -> None:
    rows = chat(cast.reader, "treasure", "island", "and more", "treasure")
    with store.write() as tx:
        question = dialogues.add_message(
            tx, rows[0].dialogue_id, parent_id=None, role="user", content="edited", author_kind="human"
        )
        run = runs.create_run(tx, kind="sft", config={"lr": 1e-4, "名": ["字"]})
        feedback.rate(tx, message_id=rows[1].id, rater_id=cast.reader, verdict="up", note="good")
    store.backup(tmp_path / "copy.db")
    assert [each.name for each in tmp_path.iterdir()] == ["copy.db"]
    with pytest.raises(DataError, match="already"):
        store.backup(tmp_path / "copy.db")
    file = Store.open(tmp_path / "copy.db")
    with store.read() as tx, file.read() as copied:
        for table in copying.ROWS:
            every = select(table).order_by(*table.primary_key)
            assert tx.connection().execute(every).all() == copied.connection().execute(every).all()
        assert dialogues.path(copied, rows[3].id)[0].content == "treasure"
        assert dialogues.get_message(copied, question.id, owner_id=cast.reader).parent_id is None
        assert runs.get_run(copied, run.id).config == {"lr": 1e-4, "名": ["字"]}
        assert [hit.message_id for hit in search.search(copied, cast.reader, "treasure")] == [rows[3].id]
    file.close()


def test_a_backup_takes_the_place_of_all_rows_and_of_none_that_was_deleted(
    store: Store, cast: SimpleNamespace, chat: Callable[..., list[tables.Message]], tmp_path: Path
) -> None:
    stays, goes = (chat(cast.reader, text, "a")[0].dialogue_id for text in ("stays", "goes"))
    store.backup(tmp_path / "copy.db")
    with store.write() as tx:
        dialogues.delete_dialogue(tx, goes, owner_id=cast.reader)
    later = chat(cast.reader, "later", "a")[0].dialogue_id
    home = tmp_path / "home"
    home.mkdir()
    with store.read() as before:
        count = select(func.count()).select_from(tables.Dialogue)
        assert before.scalar(count) == 2
        kept = restoring.restore_on_server(tmp_path / "copy.db", store, home)
        assert before.scalar(count) == 2, "who reads goes on"
    with store.read() as tx:
        assert [*tx.scalars(select(tables.Dialogue.id))] == [stays]
        assert tx.get(tables.Tombstone, goes)
    assert kept is not None
    assert [*home.iterdir()] == [kept]
    assert restoring.restore_on_server(kept, store, home)
    with store.read() as tx:
        assert {*tx.scalars(select(tables.Dialogue.id))} == {stays, later}


def test_a_restore_that_fails_changes_nothing(store: Store, cast: SimpleNamespace, tmp_path: Path) -> None:
    store.backup(tmp_path / "copy.db")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as connection, connection:
        connection.execute("INSERT INTO usage VALUES ('nobody', '2026-01-01', 1)")
    with pytest.raises(Conflict):
        restoring.restore_on_server(tmp_path / "copy.db", store, tmp_path)
    with store.read() as tx:
        assert tx.scalar(select(func.count()).select_from(tables.User)) == 5


def test_a_file_moves_to_a_new_database(
    make_store: Callable[[], Store], store: Store, cast: SimpleNamespace, tmp_path: Path
) -> None:
    store.backup(tmp_path / "copy.db")
    new = make_store()
    assert restoring.restore_on_server(tmp_path / "copy.db", new, tmp_path) is None
    with new.read() as tx:
        assert accounts.get_user(tx, cast.trainer).name == "trainer"


def test_the_password_is_in_no_text_of_the_address() -> None:
    place = postgres._url(f"postgresql://u:{SECRET}@h/d")
    assert SECRET not in f"{place!r} {place}"
