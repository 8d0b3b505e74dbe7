from __future__ import annotations

from datetime import timedelta

from tutelage.store import Store, workers
from tutelage.store.ids import now
from tutelage.store.tables import Worker


def test_workers_are_there_until_they_leave_or_are_silent(store: Store) -> None:
    with store.write() as tx:
        for name in ("b", "a", "b", "dead"):
            workers.show(tx, name)
        tx.get_one(Worker, "dead").seen = now() - workers.ALIVE - timedelta(seconds=1)
        tx.flush()
        assert workers.alive(tx) == ["a", "b"]
        workers.leave(tx, "a")
        workers.leave(tx, "a")
        assert workers.alive(tx) == ["b"]
        tx.get_one(Worker, "dead").seen = now() - workers.KEPT - timedelta(seconds=1)
        tx.flush()
        workers.show(tx, "b")
        tx.expire_all()
        assert tx.get(Worker, "dead") is None
