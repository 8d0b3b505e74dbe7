from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from tutelage.store import Store, accounts, dialogues
from tutelage.store.tables import Message


@pytest.fixture(scope="session")
def empty_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database without rows, to copy."""
    path = tmp_path_factory.mktemp("template") / "tutelage.db"
    Store.open(path).close()
    return path


@pytest.fixture
def make_store(
    empty_database: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Store]]:
    """Makes stores with nothing in them; hypothesis needs one an example."""
    opened: list[Store] = []

    def make() -> Store:
        path = tmp_path_factory.mktemp("store") / "tutelage.db"
        shutil.copy(empty_database, path)
        opened.append(Store.open(path))
        return opened[-1]

    yield make
    for store in opened:
        store.close()


@pytest.fixture
def store(make_store: Callable[[], Store]) -> Store:
    return make_store()


@pytest.fixture
def cast(store: Store) -> SimpleNamespace:
    """Who is there: a reader who consents, another who does not, two trainers, an operator. Ids."""
    with store.write() as tx:
        make = accounts.create_user
        return SimpleNamespace(
            reader=make(tx, name="reader", password_hash="-", role="user", consent=True).id,
            private=make(tx, name="private", password_hash="-", role="user").id,
            trainer=make(tx, name="trainer", password_hash="-", role="trainer").id,
            second=make(tx, name="second", password_hash="-", role="trainer").id,
            operator=make(tx, name="operator", password_hash="-", role="operator").id,
        )


@pytest.fixture
def chat(store: Store) -> Callable[..., list[Message]]:
    """Writes a finished chat: questions and answers in turn, one dialogue."""

    def write(owner_id: str, *texts: str, status: str = "complete", temporary: bool = False) -> list[Message]:
        with store.write() as tx:
            dialogue = dialogues.create_dialogue(tx, owner_id, temporary=temporary)
            rows: list[Message] = []
            for index, text in enumerate(texts):
                parent = rows[-1].id if rows else None
                if index % 2 == 0:
                    row = dialogues.add_message(
                        tx,
                        dialogue.id,
                        parent_id=parent,
                        role="user",
                        content=text,
                        author_kind="human",
                        author_id=owner_id,
                    )
                else:
                    row = dialogues.start_answer(
                        tx, dialogue.id, parent_id=parent, model_version="v1", sampling={"temperature": 1.0}
                    )
                    dialogues.finish_answer(tx, row.id, content=text, status=status, finish_reason="stop")
                rows.append(row)
            return rows

    return write
