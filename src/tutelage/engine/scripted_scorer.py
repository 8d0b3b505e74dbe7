"""A scorer that likes it short, typed like the real one."""

from __future__ import annotations

from collections.abc import Sequence

from tutelage.engine.interface import Reward
from tutelage.rendering import Renderer


class ScriptedScorer:
    """The reward is minus the number of the completion's tokens, its end token apart. `asked` holds what was scored."""

    def __init__(self, *, renderer: Renderer, version: str = "scripted", context_length: int = 1024) -> None:
        self.version = version
        self.renderer = renderer
        self.context_length = context_length
        self.temperature = 2.0
        self.asked: list[tuple[list[int], list[int]]] = []

    async def rewards(self, dialogues: Sequence[tuple[Sequence[int], Sequence[int]]]) -> list[Reward]:
        """One for each, in order."""
        self.asked += [(list(prompt), list(completion)) for prompt, completion in dialogues]
        return [Reward(1.0 - len(completion), 0.25) for _, completion in dialogues]
