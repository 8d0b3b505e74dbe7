"""The reward model of a running server: loaded when it is first asked for, one at a time. No torch here."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import anyio.to_thread

from tutelage.engine.interface import Scorer
from tutelage.errors import ModelError, NotFound, TutelageError, Unavailable
from tutelage.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

LoadScorer = Callable[[ModelVersion], Scorer]


def no_scorer(version: ModelVersion) -> Scorer:
    """For servers that score nothing. Raises Unavailable."""
    raise Unavailable(
        f"this server does not score with {version.name}", hint="start it with `tutelage serve`"
    )


class ScorerPool:
    """Keeps the reward version that was last asked for; another one takes its place."""

    def __init__(self, registry: Registry, load: LoadScorer) -> None:
        self._registry = registry
        self._load = load
        self._loaded: Scorer | None = None
        self._one_load = asyncio.Lock()

    async def get(self, name: str) -> Scorer:
        """The scorer of a version, an alias or `latest`. Raises NotFound, and ModelError when it cannot be loaded."""
        version = await anyio.to_thread.run_sync(lambda: self._registry.resolve(name, kind="reward"))
        if version.kind != "reward":
            raise NotFound(
                f"{name} is a {version.kind} model and scores nothing", hint="name a reward version"
            )
        async with self._one_load:
            if self._loaded is None or self._loaded.version != version.name:
                self._loaded = None  # two bases at once may not fit into memory
                self._loaded = await self._loading(version)
            return self._loaded

    async def _loading(self, version: ModelVersion) -> Scorer:
        try:
            return await anyio.to_thread.run_sync(self._load, version)
        except TutelageError:
            raise
        except Exception as error:
            log.exception("version %s cannot be loaded", version.name)
            hint = "see the server's log"
            raise ModelError(f"version {version.name} cannot be loaded: {error}", hint=hint) from error
