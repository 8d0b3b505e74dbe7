"""The scorer of this package: a published reward version, one call at a time in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from threading import Lock

from tutelage.engine.interface import Reward
from tutelage.models.own_thread import in_own_thread
from tutelage.registry import ModelVersion
from tutelage.rendering import Renderer
from tutelage.training.reward_model import Judge, load_judge


class TorchScorer:
    """Scores with one reward version from this process. See `Scorer`."""

    def __init__(self, version: str, judge: Judge) -> None:
        self._version = version
        self._judge = judge
        self._busy = Lock()

    @property
    def version(self) -> str:
        return self._version

    @property
    def renderer(self) -> Renderer:
        return self._judge.loaded.renderer

    @property
    def context_length(self) -> int:
        return self._judge.loaded.model.context_length

    @property
    def temperature(self) -> float:
        return self._judge.reward.temperature

    async def rewards(self, dialogues: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Reward]:
        return await asyncio.to_thread(self._rewards, dialogues)

    def _rewards(self, dialogues: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Reward]:
        asked = [(prompt, [completion]) for prompt, completion in dialogues]
        with self._busy:
            scores = in_own_thread(lambda: self._judge.score(asked))
        return [Reward(float(each.mean()), float(each.std(correction=0))) for each in scores]


def load(version: ModelVersion, home: Path) -> TorchScorer:
    """Load a published reward version. Raises ModelError."""
    return TorchScorer(version.name, in_own_thread(lambda: load_judge(version, home)))
