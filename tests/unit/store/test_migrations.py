from __future__ import annotations

import sqlite3
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from tutelage.dialogue import Dialogue, Message
from tutelage.errors import DataError
from tutelage.store import Store, audit, imports, migrations
from tutelage.store.restoring import restore
from tutelage.store.sqlite import connect
from tutelage.store.tables import Base

pytestmark = pytest.mark.sqlite

HEAD = migrations.HEAD


def test_head_is_the_last_step() -> None:
    assert ScriptDirectory(str(migrations.FOLDER)).get_heads() == [migrations.HEAD]


def test_the_steps_lead_to_the_tables(store: Store) -> None:
    engine = connect(store.place)
    with engine.connect() as connection:
        opts = {"compare_type": False, "include_name": _but_the_text_index}
        context = MigrationContext.configure(connection, opts=opts)
        found = compare_metadata(context, Base.metadata)
        assert [change for change in found if change[1].name != "ix_messages_content"] == [], "PostgreSQL's"
    engine.dispose()


def _but_the_text_index(name: str | None, kind: str, parents: object) -> bool:
    """SQLite keeps the index in tables of its own."""
    return not (kind == "table" and name is not None and name.startswith("search_texts"))


def test_many_may_open_a_new_database_at_once(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        for store in pool.map(lambda _: Store.open(tmp_path / "tutelage.db"), range(8)):
            store.close()
    assert not [*tmp_path.glob("*.bak")]


def test_an_older_database_is_copied_then_migrated_and_keeps_its_rows(
    store: Store, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    with store.write() as tx:
        imports.import_dialogue(tx, Dialogue((Message("user", "a"), Message("assistant", "b")), source="s"))
    store.close()
    request.getfixturevalue("future")
    Store.open(store.place).close()
    with closing(sqlite3.connect(store.place)) as connection:
        assert connection.execute("SELECT mood FROM dialogues").fetchall() == [("calm",)]
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)
    [copy] = store.place.parent.glob("*.bak")
    assert str(copy) in caplog.text
    with closing(sqlite3.connect(copy)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert connection.execute("SELECT count(*) FROM messages").fetchone() == (2,)


def test_a_backup_from_before_comes_back_and_nothing_is_said_to_be_kept_that_is_gone(
    store: Store, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    store.backup(tmp_path / "copy.db")
    store.close()
    request.getfixturevalue("future")
    assert restore(tmp_path / "copy.db", tmp_path / "tutelage-new.db") is None
    with closing(sqlite3.connect(tmp_path / "tutelage-new.db")) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (migrations.HEAD,)
    assert "kept" not in caplog.text


def test_rows_of_every_step_come_along(tmp_path: Path) -> None:
    """Each step finds two rows in every table that stands by then, and none is gone at the end."""
    path = tmp_path / "tutelage.db"
    wanted: Counter[str] = Counter()
    for step in sorted(migrations.FOLDER.glob("versions/0*.py")):
        engine = connect(path, migrating=True)
        with engine.execution_options(begin="BEGIN IMMEDIATE").begin() as connection:
            command.upgrade(migrations._config(connection), step.name[:4])
            wanted += _fill(connection, but=set(wanted))
        engine.dispose()
    Store.open(path).close()
    with closing(sqlite3.connect(path)) as connection:
        found = {table: connection.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in wanted}
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        hits = connection.execute("SELECT count(*) FROM search_texts WHERE search_texts MATCH 'content'")
        assert hits.fetchone()[0] == wanted["messages"]
    assert found == wanted
    assert found.keys() >= {"users", "messages", "rankings", "audit_log", "campaigns", "workers"}


def _fill(connection: sa.Connection, *, but: set[str]) -> Counter[str]:
    """Put two rows that belong together into each table of people's; returns how many there are by table."""
    tables = sa.MetaData()
    tables.reflect(connection, only=lambda name, _: not name.startswith(("search_", "alembic_")))
    made = Counter[str]()
    for table in tables.sorted_tables:
        if table.name in but:
            continue
        for index in range(2):
            connection.execute(table.insert(), {each.name: _value(each, index) for each in table.columns})
            made[table.name] += 1
    return made


def _value(column: sa.Column[Any], index: int) -> Any:
    for key in column.foreign_keys:
        return None if key.column.table is column.table else f"{key.column.table.name} {index}"
    match column.type:
        case sa.DateTime():
            return datetime(2026, 1, 1 + index)
        case sa.JSON():
            return {}
        case sa.Boolean():
            return False
        case sa.Integer() | sa.Float():
            return index
    told = {"role": "user", "status": "complete", "content": f"the content of {index}"}
    return told.get(column.name, f"{column.table.name} {index}")


def test_a_step_that_fails_changes_nothing(store: Store, future: Path) -> None:
    store.close()
    with (future / "versions" / "9000_next.py").open("a") as step:
        step.write("    raise ZeroDivisionError\n")
    with pytest.raises(ZeroDivisionError):
        Store.open(store.place)
    with closing(sqlite3.connect(store.place)) as connection:
        assert connection.execute("SELECT version_num FROM alembic_version").fetchone() == (HEAD,)
        assert "mood" not in str(connection.execute("SELECT sql FROM sqlite_master").fetchall())


def test_a_newer_database_is_refused(store: Store) -> None:
    store.close()
    with closing(sqlite3.connect(store.place)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(DataError, match="newer") as caught:
        Store.open(store.place)
    assert "Upgrade" in caught.value.hint


def test_what_operators_did_before_is_told_by_codes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "tutelage.db"
    with monkeypatch.context() as before:
        before.setattr(migrations, "HEAD", "0008")
        Store.open(path).close()
    insert = "INSERT INTO audit_log (id, action, subject, created) VALUES (?, ?, '', '2026-01-01 00:00:00')"
    kept = [("1", "start round"), ("2", "moved a campaign's end"), ("3", "no deed of ours")]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany(insert, kept)
    store = Store.open(path)
    with store.read() as tx:
        found = [entry.action for entry, _ in audit.list_entries(tx)]
    store.close()
    assert found == ["no deed of ours", "move_campaign_end", "start_round"]
