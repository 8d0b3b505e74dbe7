from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tutelage.errors import Conflict, DataError, NotFound, Unavailable
from tutelage.store import Store, accounts, waiting
from tutelage.store.tables import Dialogue, User


def names(store: Store) -> list[str | None]:
    with store.read() as tx:
        return [*tx.scalars(select(User.name).order_by(User.id))]


@pytest.mark.sqlite
def test_every_connection_is_set_up(store: Store) -> None:
    for session in (store.read, store.write):
        with session() as tx:
            pragma = tx.connection().exec_driver_sql
            assert pragma("PRAGMA journal_mode").scalar() == "wal"
            assert pragma("PRAGMA foreign_keys").scalar() == 1
            assert pragma("PRAGMA busy_timeout").scalar() == waiting.BUSY_SECONDS * 1000


def test_a_new_file_is_for_its_owner_only(tmp_path: Path) -> None:
    fresh = tmp_path / "deep" / "new.db"
    Store.open(fresh).close()
    assert stat.S_IMODE(fresh.stat().st_mode) == 0o600
    assert stat.S_IMODE(fresh.parent.stat().st_mode) == 0o700


def test_a_block_that_raises_writes_nothing(store: Store) -> None:
    with pytest.raises(NotFound), store.write() as tx:
        accounts.open_session(tx, accounts.create_guest(tx).id + "?", days=1)
    assert names(store) == []


def test_what_a_reader_changes_is_forgotten(store: Store) -> None:
    with store.read() as tx:
        tx.add(User(role="guest"))
        tx.flush()
    assert names(store) == []


def test_rows_can_be_read_after_their_block(store: Store) -> None:
    with store.write() as tx:
        written = accounts.create_guest(tx)
    with store.read() as tx:
        read = accounts.get_user(tx, written.id)
    assert (written.role, written.created) == (read.role, read.created)


def test_writers_in_many_threads_take_turns(store: Store) -> None:
    with store.write() as tx:
        user_id = accounts.create_guest(tx).id

    def add_one(_: int) -> None:
        with store.write() as tx:
            user = accounts.get_user(tx, user_id)
            user.locale = str(int(user.locale or 0) + 1)

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add_one, range(200)))
    with store.read() as tx:
        assert accounts.get_user(tx, user_id).locale == "200"


def test_two_stores_on_one_database_take_turns(store: Store) -> None:
    other = Store.open(store.place)
    with store.write() as tx:
        user_id = accounts.create_guest(tx).id

    def add_one(index: int) -> None:
        with (store, other)[index % 2].write() as tx:
            user = accounts.get_user(tx, user_id)
            user.locale = str(int(user.locale or 0) + 1)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add_one, range(60)))
    other.close()
    with store.read() as tx:
        assert accounts.get_user(tx, user_id).locale == "60"


def test_readers_go_on_while_somebody_writes_and_see_one_moment(store: Store) -> None:
    with store.write() as tx:
        accounts.create_guest(tx)
    count = select(func.count()).select_from(User)
    with store.read() as reader:
        assert reader.scalar(count) == 1
        with store.write() as writer:
            accounts.create_guest(writer)
            assert reader.scalar(count) == 1
        assert reader.scalar(count) == 1
    assert len(names(store)) == 2


def test_a_writer_kept_waiting_is_told_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "BUSY_SECONDS", 0.05)
    impatient = Store.open(store.place)
    with store.write() as tx:
        accounts.create_guest(tx)
        with pytest.raises(Unavailable), impatient.write() as late:
            accounts.create_guest(late)
        with pytest.raises(Unavailable), store.write():
            pass
    impatient.close()


@pytest.mark.sqlite
def test_a_full_disk_is_told_and_nothing_is_half_written(store: Store) -> None:
    def fill() -> None:
        with store.write() as tx:
            pages = tx.connection().exec_driver_sql("PRAGMA page_count").scalar()
            tx.connection().exec_driver_sql(f"PRAGMA max_page_count = {pages}")
            for _ in range(2000):
                accounts.create_guest(tx)

    with pytest.raises(Unavailable, match="disk"):
        fill()
    assert names(store) == []


def test_what_was_accepted_survives_a_kill(store: Store) -> None:
    program = """
import sys
from tutelage.store import Store, accounts
store = Store.open(sys.argv[1])
while True:
    with store.write() as tx:
        accounts.create_user(tx, name=(name := accounts.secrets.token_hex(8)), password_hash="-", role="user")
        accounts.create_guest(tx)
    print(name, flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store.place)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        accepted = [child.stdout.readline().strip() for _ in range(20)]
        child.kill()
        accepted += child.stdout.read().split()
    found = names(store)
    assert set(accepted) <= set(found)
    assert len(found) % 2 == 0


def test_a_row_that_hangs_on_nothing_is_a_conflict(store: Store) -> None:
    with pytest.raises(Conflict), store.write() as tx:
        tx.add(Dialogue(owner_id="nobody"))


@pytest.mark.parametrize(
    "content", [b"not a database at all, only some text" * 50, b"SQLite format 3\x00" + b"\xff" * 5000]
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "bad.db"
    file.write_bytes(content)
    with pytest.raises(DataError) as caught:
        Store.open(file)
    assert str(file) in caught.value.where
    assert caught.value.hint
    assert file.read_bytes() == content


@pytest.mark.sqlite
def test_pages_damaged_later_are_an_error_for_people(store: Store) -> None:
    with store.write() as tx:
        for _ in range(500):
            accounts.create_guest(tx)
    store.close()
    with closing(sqlite3.connect(store.place)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    size = store.place.stat().st_size
    with store.place.open("r+b") as file:
        file.seek(size // 2)
        file.write(b"\xff" * (size - size // 2))
    with pytest.raises(DataError), store.read() as tx:
        tx.scalars(select(User)).all()


def test_another_programs_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    with closing(sqlite3.connect(file)) as connection:
        connection.execute("CREATE TABLE things (id)")
    with pytest.raises(DataError, match="another program"):
        Store.open(file)


def test_a_place_that_cannot_hold_a_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for place in (tmp_path, tmp_path / "file" / "tutelage.db"):
        with pytest.raises(DataError):
            Store.open(place)


@pytest.mark.sqlite
def test_a_backup_while_others_write_is_whole(store: Store, tmp_path: Path) -> None:
    stop = threading.Event()

    def keep_writing() -> None:
        while not stop.is_set():
            with store.write() as tx:  # always two at once
                accounts.create_guest(tx)
                accounts.create_guest(tx)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for number in range(5):
            store.backup(tmp_path / f"copy-{number}.db")
    finally:
        stop.set()
        writer.join()
    for number in range(5):
        copy = Store.open(tmp_path / f"copy-{number}.db")
        assert len(names(copy)) % 2 == 0
        copy.close()
    assert not [*tmp_path.glob("*.partial")]


@pytest.mark.sqlite
def test_a_backup_never_replaces_a_file(store: Store, tmp_path: Path) -> None:
    target = tmp_path / "mine.txt"
    target.write_text("precious")
    with pytest.raises(DataError):
        store.backup(target)
    assert target.read_text() == "precious"
