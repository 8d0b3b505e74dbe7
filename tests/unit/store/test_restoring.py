"""A backup put back: all of it or nothing, under everybody's eyes, and nothing deleted comes back to life."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest
from sqlalchemy import func, select

from tutelage.errors import DataError
from tutelage.store import Store, accounts, dialogues, feedback
from tutelage.store.restoring import restore
from tutelage.store.tables import Dialogue, Message, Rating, User

pytestmark = pytest.mark.sqlite


def count(store: Store, table: type[Dialogue] | type[Message] | type[User] | type[Rating]) -> int:
    with store.read() as tx:
        return tx.scalar(select(func.count()).select_from(table)) or 0


def add_guests(store: Store, number: int) -> None:
    with store.write() as tx:
        for _ in range(number):
            accounts.create_guest(tx)


def test_everybody_sees_the_old_content_and_it_can_be_taken_back(store: Store, tmp_path: Path) -> None:
    add_guests(store, 2)
    store.backup(tmp_path / "copy.db")
    add_guests(store, 3)
    kept = restore(tmp_path / "copy.db", store.place)
    assert count(store, User) == 2, "the connections that were open before see what was restored"
    add_guests(store, 1)
    assert kept is not None
    restore(kept, store.place)
    assert count(store, User) == 5
    assert not list(store.place.parent.glob(".restoring-*"))


def test_while_others_read_and_write_nobody_sees_a_part(store: Store, tmp_path: Path) -> None:
    add_guests(store, 2)
    store.backup(tmp_path / "copy.db")
    stop, odd = threading.Event(), []

    def keep_writing() -> None:
        while not stop.is_set():
            add_guests(store, 2)  # always two at once
            if count(store, User) % 2:
                odd.append(True)

    writer = threading.Thread(target=keep_writing)
    writer.start()
    try:
        for _ in range(3):
            restore(tmp_path / "copy.db", store.place)
    finally:
        stop.set()
        writer.join()
    assert not odd
    with closing(sqlite3.connect(store.place)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_what_was_deleted_since_stays_deleted(store: Store, tmp_path: Path) -> None:
    with store.write() as tx:
        user = accounts.create_guest(tx)
        kept, gone = (dialogues.create_dialogue(tx, user.id) for _ in range(2))
        for dialogue in (kept, gone):
            asked = dialogues.add_message(
                tx, dialogue.id, parent_id=None, role="user", content="Hi", author_kind="human"
            )
            said = dialogues.add_message(
                tx, dialogue.id, parent_id=asked.id, role="assistant", content="Hello", author_kind="model"
            )
            rating = feedback.rate(tx, message_id=said.id, rater_id=user.id, verdict="up", reasons=[])
    assert rating is not None
    store.backup(tmp_path / "copy.db")
    with store.write() as tx:
        dialogues.delete_dialogue(tx, gone.id, owner_id=user.id)
    restore(tmp_path / "copy.db", store.place)
    with store.read() as tx:
        assert [*tx.scalars(select(Dialogue.id))] == [kept.id]
    assert (count(store, Message), count(store, Rating)) == (2, 1)


def restore_until(source: Path, target: Path, touch: int) -> int:
    """Restore in a child that is killed when it opens a file or a database for the `touch`-th time; its exit code."""
    child = os.fork()
    if child == 0:
        left = touch

        def hook(event: str, _: object) -> None:
            nonlocal left
            if event in ("open", "sqlite3.connect", "os.rename", "os.remove"):
                left -= 1
                if left == 0:
                    os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(hook)
        restore(source, target)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_anywhere_it_leaves_what_was_there(store: Store, tmp_path: Path) -> None:
    add_guests(store, 2)
    store.backup(tmp_path / "copy.db")
    add_guests(store, 3)
    store.close()
    before = 5
    for touch in itertools.count(1, 3):
        code = restore_until(tmp_path / "copy.db", store.place, touch)
        if code == 0:
            break
        assert code == -signal.SIGKILL
        found = count(store, User)
        store.close()
        assert found in (before, 2), "once it has taken place, only tidying up is left"
        before = found
    assert touch > 10
    assert count(store, User) == 2


def test_a_damaged_database_gives_way_and_is_kept(store: Store, tmp_path: Path) -> None:
    add_guests(store, 2)
    store.backup(tmp_path / "copy.db")
    store.close()
    store.place.write_bytes(b"no database at all, " * 500)
    kept = restore(tmp_path / "copy.db", store.place)
    assert kept is not None
    assert kept.read_bytes().startswith(b"no database at all")
    again = Store.open(store.place)
    assert count(again, User) == 2
    again.close()


def test_a_new_place_takes_a_backup_too(store: Store, tmp_path: Path) -> None:
    add_guests(store, 2)
    store.backup(tmp_path / "copy.db")
    (tmp_path / "new").mkdir()
    assert restore(tmp_path / "copy.db", tmp_path / "new" / "tutelage.db") is None
    moved = Store.open(tmp_path / "new" / "tutelage.db")
    assert count(moved, User) == 2
    moved.close()


def damaged(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[8192:12288] = bytes(4096)
    path.write_bytes(content)


def another_programs(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (id)")


def no_database(path: Path) -> None:
    path.write_text("Dear diary, " * 100)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [damaged, another_programs, no_database, empty, Path.unlink])
def test_what_is_no_whole_backup_changes_nothing(store: Store, tmp_path: Path, damage: object) -> None:
    add_guests(store, 2)
    copy = tmp_path / "copy.db"
    store.backup(copy)
    assert callable(damage)
    damage(copy)
    with pytest.raises(DataError) as raised:
        restore(copy, store.place)
    assert raised.value.where == str(copy)
    assert raised.value.hint
    assert count(store, User) == 2
    assert not list(store.place.parent.glob("*.bak"))
