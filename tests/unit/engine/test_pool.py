"""The pool follows promotions while it serves, and survives versions that cannot be loaded."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from tutelage.engine.pool import EnginePool
from tutelage.engine.scripted_engine import ScriptedEngine
from tutelage.errors import ModelError, NotFound, Unavailable
from tutelage.models import tiny
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import Renderer, load_renderer


class Loader:
    """Makes scripted engines; versions in `broken` fail, and while `gate` is not set loading takes its time."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self.engines: dict[str, ScriptedEngine] = {}
        self.loads: list[str] = []
        self.broken: set[str] = set()
        self.gate = threading.Event()
        self.gate.set()

    def __call__(self, version: ModelVersion) -> ScriptedEngine:
        self.loads.append(version.name)
        assert self.gate.wait(10)
        if version.name in self.broken:
            raise ModelError("the weights are gone")
        self.engines[version.name] = ScriptedEngine(["hi"], renderer=self.renderer, version=version.name)
        return self.engines[version.name]


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    registry = Registry(tmp_path)
    for _ in range(5):
        registry.publish(kind="chat", model="tiny")
    registry.promote("v1")
    return registry


@pytest.fixture
def loader(tmp_path: Path) -> Loader:
    folder = tmp_path / "tiny"
    folder.mkdir()
    tiny.write_text_files(folder)
    return Loader(load_renderer(folder))


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(scenario(), 20))


async def until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline, "this should have come about by now"
        await asyncio.sleep(0.005)


def test_the_first_to_ask_waits_and_all_share_one_engine(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        first, second, named = await asyncio.gather(pool.get(), pool.get(), pool.get("v1"))
        assert first is second is named
        assert loader.loads == ["v1"]

    run(scenario)


def test_a_promotion_takes_over_while_the_old_version_answers(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        registry.promote("v2")
        loader.gate.clear()
        assert (await pool.get()).version == "v1"
        await until(lambda: loader.loads == ["v1", "v2"])
        assert pool.state().loading == ("v2",)
        assert (await pool.get()).version == "v1"
        loader.gate.set()
        await until(lambda: pool.state().serving == {"stable": "v2"})
        assert (await pool.get()).version == "v2"

    run(scenario)


def test_an_engine_that_stops_by_itself_is_loaded_anew(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        first = loader.engines[(await pool.get()).version]
        first.broken = True
        second, other = await asyncio.gather(pool.get(), pool.get("v1"))
        assert second is other is not first
        assert loader.loads == ["v1", "v1"]
        await until(lambda: first.closed)
        assert pool.state().serving == {"stable": "v1"}
        loader.engines["v1"].broken = True
        loader.broken.add("v1")
        with pytest.raises(ModelError, match="the weights are gone"):
            await pool.get()

    run(scenario)


def test_open_answers_end_on_the_old_version_before_it_is_closed(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        lease = await pool.lease()
        registry.promote("v2")
        await pool.get()
        await until(lambda: pool.state().serving == {"stable": "v2"})
        assert (await pool.get()).version == "v2"
        assert not loader.engines["v1"].closed
        lease.release()
        await until(lambda: loader.engines["v1"].closed)
        lease.release()

    run(scenario)


def test_an_old_version_nobody_uses_is_closed_at_once(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        registry.promote("v2")
        await pool.get()
        await until(lambda: loader.engines["v1"].closed)
        assert not loader.engines["v2"].closed

    run(scenario)


def test_a_version_that_cannot_be_loaded_leaves_the_old_one_serving(
    registry: Registry, loader: Loader
) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        loader.broken.add("v2")
        registry.promote("v2")
        await pool.get()
        await until(lambda: "v2" in pool.state().failed)
        assert (await pool.get()).version == "v1"
        assert pool.state().failed == {"v2": "the weights are gone"}
        assert loader.loads == ["v1", "v2"]
        registry.rollback()
        assert (await pool.get()).version == "v1"
        assert pool.state().failed == {}

    run(scenario)


def test_when_nothing_can_answer_the_reason_is_raised_and_a_promotion_heals(
    registry: Registry, loader: Loader
) -> None:
    async def scenario() -> None:
        loader.broken.add("v1")
        pool = EnginePool(registry, loader)
        with pytest.raises(ModelError, match="the weights are gone"):
            await pool.get()
        with pytest.raises(ModelError):
            await pool.get()
        assert loader.loads == ["v1"]
        registry.promote("v2")
        assert (await pool.get()).version == "v2"

    run(scenario)


def test_an_unexpected_failure_becomes_a_model_error(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        def explode(version: ModelVersion) -> ScriptedEngine:
            raise MemoryError("no room")

        with pytest.raises(ModelError, match="v1 cannot be loaded"):
            await EnginePool(registry, explode).get()

    run(scenario)


def test_versions_are_loaded_one_after_the_other(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        loader.gate.clear()
        both = asyncio.gather(pool.get("v2"), pool.get("v3"))
        await until(lambda: set(pool.state().loading) == {"v2", "v3"})
        await asyncio.sleep(0.1)
        assert len(loader.loads) == 1
        loader.gate.set()
        assert [engine.version for engine in await both] == ["v2", "v3"]

    run(scenario)


def test_versions_asked_for_by_name_are_kept_while_they_are_the_last_used(
    registry: Registry, loader: Loader
) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader, keep=2)
        await pool.get()
        for name in ("v2", "v3", "v2", "v4"):
            (await pool.lease(name)).release()
        await until(lambda: loader.engines["v3"].closed)
        assert [name for name, engine in loader.engines.items() if not engine.closed] == ["v1", "v2", "v4"]
        assert loader.loads == ["v1", "v2", "v3", "v4"]

    run(scenario)


def test_a_version_in_use_is_never_closed(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader, keep=1)
        used = await pool.lease("v2")
        for name in ("v3", "v4", "v5"):
            (await pool.lease(name)).release()
        await until(lambda: loader.engines["v4"].closed)
        assert not loader.engines["v2"].closed
        used.release()
        await until(lambda: loader.engines["v2"].closed)

    run(scenario)


def test_unknown_names_and_reward_models_are_refused(registry: Registry, loader: Loader) -> None:
    registry.publish(kind="reward", model="tiny")

    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        for name in ("v9", "nothing", "r1", "../v1"):
            with pytest.raises(NotFound):
                await pool.get(name)

    run(scenario)


def test_an_alias_file_that_breaks_leaves_the_old_version_serving(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        broken = registry.aliases_file.with_name("broken")
        broken.write_text("{")
        broken.replace(registry.aliases_file)
        assert (await pool.get()).version == "v1"

    run(scenario)


def test_a_folder_that_vanishes_leaves_the_old_version_serving(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        registry.folder.rename(registry.folder.with_name("elsewhere"))
        assert (await pool.get()).version == "v1"

    run(scenario)


def test_a_caller_who_gives_up_does_not_stop_the_loading(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        loader.gate.clear()
        impatient = asyncio.create_task(pool.get())
        await until(lambda: loader.loads == ["v1"])
        impatient.cancel()
        loader.gate.set()
        assert (await pool.get()).version == "v1"
        assert loader.loads == ["v1"]

    run(scenario)


def test_a_closed_pool_frees_its_engines_and_refuses(registry: Registry, loader: Loader) -> None:
    async def scenario() -> None:
        pool = EnginePool(registry, loader)
        await pool.get()
        await pool.close()
        assert loader.engines["v1"].closed
        with pytest.raises(Unavailable):
            await pool.get()

    run(scenario)
