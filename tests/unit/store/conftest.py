from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import compress
from pathlib import Path
from textwrap import dedent
from types import SimpleNamespace
from typing import Any

import pytest

from tutelage.store import Store, accounts, dialogues, labelling, migrations
from tutelage.store.labelling import RankingTask
from tutelage.store.tables import Message, Ranking

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
    "test_continuing",
    "test_database",
    "test_dialogues",
    "test_draws",
    "test_export",
    "test_imports",
    "test_leases",
    "test_quota",
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
    server = request.getfixturevalue("postgres_server") if kind == "postgres" else None

    def in_file() -> Store:
        place = tmp_path_factory.mktemp("store") / "tutelage.db"
        shutil.copy(request.getfixturevalue("empty_file"), place)
        return Store.open(place)

    def make() -> Store:
        opened.append(server.borrow() if server else in_file())
        return opened[-1]

    yield make
    for store in opened:
        if server:
            server.take_back(store)
        else:
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


SAMPLES = [{"content": "b", "model_version": "v2", "sampling": {"seed": 1}}, {"content": "c"}]


@dataclass(frozen=True)
class Desk:
    """The steps of ranking, each in a transaction of its own."""

    store: Store

    def take(self, annotator_id: str, *, seed: int = 0, k: int = 3, **rest: Any) -> RankingTask | None:
        with self.store.write() as tx:
            rng = random.Random(seed)
            return labelling.next_ranking_task(tx, annotator_id=annotator_id, k=k, rng=rng, **rest)

    def must_take(self, annotator_id: str, **rest: Any) -> RankingTask:
        task = self.take(annotator_id, **rest)
        assert task is not None
        return task

    def fill(
        self, task: RankingTask, annotator_id: str, samples: Sequence[Any] = SAMPLES, *, seed: int = 0
    ) -> RankingTask:
        with self.store.write() as tx:
            return labelling.set_candidates(tx, task.id, annotator_id, samples, rng=random.Random(seed))

    def submit(self, task: RankingTask, annotator_id: str, **rest: Any) -> Ranking:
        rest.setdefault("groups", [[candidate.id] for candidate in task.candidates])
        with self.store.write() as tx:
            return labelling.submit_ranking(tx, task_id=task.id, annotator_id=annotator_id, **rest)

    def skip(self, task: RankingTask, annotator_id: str) -> None:
        with self.store.write() as tx:
            labelling.release(tx, task.id, annotator_id, reason="unclear")

    def rank(self, annotator_id: str, order: Sequence[Sequence[str]], **rest: Any) -> Ranking:
        """Take a task and hand in an order of texts, best first, tied ones in a group; the answer is one of them."""
        with self.store.write() as tx:
            rng = random.Random(0)
            task = labelling.next_ranking_task(tx, annotator_id=annotator_id, k=3, rng=rng, **rest)
            assert task is not None
            texts = [text for group in order for text in group if text != task.message.content]
            samples = [{"content": text} for text in texts]
            task = labelling.set_candidates(tx, task.id, annotator_id, samples, rng=rng)
            ids = {candidate.content: candidate.id for candidate in task.candidates}
            groups = [[ids[text] for text in group] for group in order]
            return labelling.submit_ranking(tx, task_id=task.id, annotator_id=annotator_id, groups=groups)


@pytest.fixture
def desk_of() -> Callable[[Store], Desk]:
    return Desk


@pytest.fixture
def desk(store: Store) -> Desk:
    return Desk(store)
