"""A version is asked before people ask it, and a share of conversations goes to the one that is compared."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from tutelage.engine.interface import Sampling, TokenChunk
from tutelage.engine.pool import EnginePool
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.errors import ModelError, NotFound
from tutelage.models import tiny
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import load_renderer
from tutelage.server.serving import lease_of, try_version, versions_for
from tutelage.store import Store, accounts, experiments


class Mute(ScriptedEngine):
    """Ends at once, or gives tokens of no probability."""

    def __init__(self, *logprobs: float, **rest: Any) -> None:
        super().__init__(["x"], **rest)
        self._logprobs = logprobs

    async def generate(self, prompt_ids: Sequence[int], sampling: Sampling) -> AsyncIterator[TokenChunk]:
        for value in self._logprobs:
            yield TokenChunk((5,), (value,))
        yield TokenChunk((), (), finish_reason="stop")


@pytest.fixture
def pool(tmp_path: Path) -> Callable[[Callable[[ModelVersion], Any]], EnginePool]:
    registry = Registry(tmp_path)
    for _ in range(2):
        registry.publish(kind="chat", model="tiny")
    registry.promote("v1")
    return lambda load: EnginePool(registry, load)


@pytest.fixture
def rest(tmp_path: Path) -> dict[str, Any]:
    (tmp_path / "text").mkdir()
    tiny.write_text_files(tmp_path / "text")
    return {"renderer": load_renderer(tmp_path / "text")}


def run(work: Any) -> Any:
    import anyio

    return anyio.run(work)


def test_a_version_that_answers_is_good(pool: Any, rest: dict[str, Any]) -> None:
    engines = pool(lambda version: ScriptedEngine(["Hello."], version=version.name, **rest))
    run(lambda: try_version(engines, "v2"))
    with pytest.raises(NotFound):
        run(lambda: try_version(engines, "v9"))


@pytest.mark.parametrize(
    ("logprobs", "reason"), [((), "nothing to say"), ((-0.1, float("nan")), "not numbers")]
)
def test_one_that_is_mute_or_mad_is_refused(
    pool: Any, rest: dict[str, Any], logprobs: tuple[float, ...], reason: str
) -> None:
    engines = pool(lambda version: Mute(*logprobs, **rest))
    with pytest.raises(ModelError, match=reason):
        run(lambda: try_version(engines, "v2"))


def test_one_that_cannot_be_loaded_is_refused(pool: Any) -> None:
    def load(version: ModelVersion) -> Any:
        raise ModelError("the adapter does not fit")

    with pytest.raises(ModelError, match="does not fit"):
        run(lambda: try_version(pool(load), "v2"))


def test_a_share_goes_to_the_other_version_and_back_when_it_breaks(
    tmp_path: Path, pool: Any, rest: dict[str, Any]
) -> None:
    store = Store.open(tmp_path / "tutelage.db")
    broken = False

    def load(version: ModelVersion) -> Any:
        if broken and version.name == "v2":
            raise ModelError("its file is gone")
        return ScriptedEngine(["Hello."], version=version.name, **rest)

    async def answered_by(engines: EnginePool) -> set[str]:
        found = set()
        for _ in range(60):
            [version] = await versions_for(store, [], 1)
            with await lease_of(engines, version) as lease:
                found.add(lease.engine.version)
        return found

    assert run(lambda: answered_by(pool(load))) == {"v1"}
    with store.write() as tx:
        by = accounts.create_guest(tx).id
        experiments.start_experiment(tx, control="v1", treatment="v2", share=0.5, by=by)
    assert run(lambda: answered_by(pool(load))) == {"v1", "v2"}
    pairs = {tuple(run(lambda: versions_for(store, [], 2))) for _ in range(40)}
    assert pairs == {(None, "v2"), ("v2", None)}
    broken = True
    assert run(lambda: answered_by(pool(load))) == {"v1"}
    store.close()
