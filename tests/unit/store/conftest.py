from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from itertools import compress
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace

import pytest

from tutelage.store import Store, accounts, copying, dialogues, migrations
from tutelage.store.tables import Message

NEXT_STEP = """
    import sqlalchemy as sa
    from alembic import op

    revision = "9000"
    down_revision = "{head}"


    def upgrade():
        file = op.get_bind().dialect.name == "sqlite"
        with op.batch_alter_table("dialogues", recreate="always" if file else "auto") as table:
            table.add_column(sa.Column("mood", sa.Text(), server_default="calm"))
"""

# What differs most between databases; the rest is asked of PostgreSQL by `make test-postgres`.
ON_POSTGRES_TOO = {
    "test_campaigns",
    "test_database",
    "test_dialogues",
    "test_export",
    "test_imports",
    "test_ranking",
    "test_runs",
    "test_search",
}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Whatever uses a store is asked of both kinds, but for what is marked as one's own."""
    if "kind" in metafunc.fixturenames:
        kinds = ["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)]
        own = [metafunc.definition.get_closest_marker(name) is not None for name in ("sqlite", "postgres")]
        every = metafunc.config.getoption("markexpr") == "postgres"
        if not any(own):
            own = [True, every or metafunc.module.__name__.rpartition(".")[2] in ON_POSTGRES_TOO]
        metafunc.parametrize("kind", list(compress(kinds, own)))


@pytest.fixture
def make_store(
    kind: str, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[], Store]]:
    """Makes stores with nothing in them; hypothesis needs one an example."""
    opened: list[Store] = []

    def in_file() -> Path:
        place = tmp_path_factory.mktemp("store") / "tutelage.db"
        shutil.copy(request.getfixturevalue("empty_file"), place)
        return place

    def on_server() -> str:
        server = request.getfixturevalue("postgres_server")
        return server.free.pop() if server.free else server.create()

    def make() -> Store:
        opened.append(Store.open(in_file() if kind == "sqlite" else on_server()))
        return opened[-1]

    yield make
    for store in opened:
        if kind == "postgres":
            with store.write() as tx:
                copying.empty(tx)
            request.getfixturevalue("postgres_server").free.append(store.place)
        store.close()


@pytest.fixture
def store(make_store: Callable[[], Store]) -> Store:
    return make_store()


@pytest.fixture
def future(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The program one step on: a schema that rebuilds a table on which others hang."""
    folder = tmp_path / "migrations"
    shutil.copytree(migrations.FOLDER, folder)
    (folder / "versions" / "9000_next.py").write_text(dedent(NEXT_STEP.format(head=migrations.HEAD)))
    monkeypatch.setattr(migrations, "FOLDER", folder)
    monkeypatch.setattr(migrations, "HEAD", "9000")
    return folder


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
