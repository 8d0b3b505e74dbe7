"""The pool of reward versions: loaded once, replaced by another, usable after a failure."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tutelage.engine.scorers import ScorerPool, no_scorer
from tutelage.engine.scripted_scorer import ScriptedScorer
from tutelage.errors import ModelError, NotFound, Unavailable
from tutelage.models import tiny
from tutelage.registry import ModelVersion, Registry
from tutelage.rendering import Renderer, load_renderer


@pytest.fixture(scope="module")
def renderer(tmp_path_factory: pytest.TempPathFactory) -> Renderer:
    folder = tmp_path_factory.mktemp("tiny")
    tiny.write_text_files(folder)
    return load_renderer(folder)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(tmp_path)
    for kind in ("reward", "reward", "chat"):
        made.publish(kind=kind, model="tiny")
    return made


def test_many_ask_at_once_and_it_is_loaded_once(registry: Registry, renderer: Renderer) -> None:
    loads: list[str] = []

    def load(version: ModelVersion) -> ScriptedScorer:
        loads.append(version.name)
        return ScriptedScorer(renderer=renderer, version=version.name)

    async def ask() -> None:
        pool = ScorerPool(registry, load)
        found = await asyncio.gather(*(pool.get("latest") for _ in range(5)))
        assert {id(each) for each in found} == {id(found[0])}
        assert (await pool.get("r1")).version == "r1"
        assert (await pool.get("r1")).version == "r1"

    asyncio.run(ask())
    assert loads == ["r2", "r1"]


def test_what_cannot_be_loaded_is_told_and_can_be_tried_again(registry: Registry, renderer: Renderer) -> None:
    outcomes = iter([RuntimeError("no memory"), ModelError("broken"), None])

    def load(version: ModelVersion) -> ScriptedScorer:
        if problem := next(outcomes):
            raise problem
        return ScriptedScorer(renderer=renderer, version=version.name)

    async def ask() -> None:
        pool = ScorerPool(registry, load)
        with pytest.raises(ModelError, match="r2 cannot be loaded: no memory"):
            await pool.get("r2")
        with pytest.raises(ModelError, match="broken"):
            await pool.get("r2")
        assert (await pool.get("r2")).version == "r2"

    asyncio.run(ask())


def test_only_reward_versions_score(registry: Registry) -> None:
    pool = ScorerPool(registry, no_scorer)
    for name in ("v1", "r7"):
        with pytest.raises(NotFound):
            asyncio.run(pool.get(name))
    with pytest.raises(Unavailable, match="does not score"):
        asyncio.run(pool.get("r1"))
