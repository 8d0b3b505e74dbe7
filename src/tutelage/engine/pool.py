"""The engines of a running server: which version answers, and how a new one takes over. No torch here.

A promotion is noticed by the alias file: the new version is loaded in a thread while the old one keeps
answering, then takes over; answers under way end on the old one, which is closed when nobody uses it.
A version that cannot be loaded leaves the old one serving, and `state()` says why. One whose engine stops by
itself, for want of memory perhaps, is loaded anew.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Protocol

import anyio.to_thread

from tutelage.engine.interface import Engine, Scorer
from tutelage.engine.scorers import LoadScorer, ScorerPool, no_scorer
from tutelage.errors import ModelError, NotFound, Sentence, TutelageError, Unavailable
from tutelage.registry import KIND_NAMES, ModelVersion, Registry

log = logging.getLogger(__name__)

Load = Callable[[ModelVersion], Engine]
Stamp = tuple[int, ...]
RETRY_SECONDS = 30.0


class Lease(AbstractContextManager["Lease"]):
    """The use of an engine for one answer: it is not closed before `release`."""

    def __init__(self, engine: Engine, release: Callable[[], None]) -> None:
        self.engine = engine
        self._release: Callable[[], None] | None = release

    def release(self) -> None:
        """Give the engine back; a second time does nothing."""
        release, self._release = self._release, None
        if release is not None:
            release()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()


@dataclass(frozen=True, slots=True)
class PoolState:
    """What answers now, what is being loaded, and which versions could not be loaded (with the reason)."""

    serving: dict[str, str]
    loading: tuple[str, ...]
    failed: dict[str, str]


class Engines(Protocol):
    """Where answers come from: an `EnginePool`, or anything that lends engines by name."""

    async def get(self, name: str = "stable") -> Engine: ...

    async def lease(self, name: str = "stable") -> Lease: ...

    async def scorer(self, name: str = "latest") -> Scorer: ...

    def state(self) -> PoolState: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Loaded:
    """An engine in memory. `asked` says that it was asked for by its own name, not through an alias."""

    engine: Engine
    users: int = 0
    used: float = 0.0
    asked: bool = False


@dataclass(frozen=True, slots=True)
class _Failure:
    error: TutelageError
    at: float


class EnginePool:
    """Loads versions on demand; keeps those that an alias serves, and the `keep` last asked for by name."""

    def __init__(
        self, registry: Registry, load: Load, *, load_scorer: LoadScorer = no_scorer, keep: int = 2
    ) -> None:
        self._registry = registry
        self._load = load
        self._scorers = ScorerPool(registry, load_scorer)
        self._keep = keep
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, _Failure] = {}
        self._wanted: dict[str, str] = {}
        self._serving: dict[str, str] = {}
        self._stamp: Stamp | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._one_load = asyncio.Lock()
        self._closed = False

    async def get(self, name: str = "stable") -> Engine:
        """The engine that answers for an alias or a version; waits only where nothing can answer yet.

        Raises NotFound for an unknown name, ModelError when the version cannot be loaded, Unavailable
        when the pool is closed. Hold the engine by `lease` while it generates.
        """
        return (await self._ready(name)).engine

    async def lease(self, name: str = "stable") -> Lease:
        """Like `get`, and keeps the engine open until the lease is released."""
        loaded = await self._ready(name)
        loaded.users += 1

        def release() -> None:
            loaded.users -= 1
            self._trim()

        return Lease(loaded.engine, release)

    async def scorer(self, name: str = "latest") -> Scorer:
        """The reward version of a name, an alias or `latest`. Raises NotFound and ModelError."""
        if self._closed:
            raise Unavailable("the server is shutting down", hint="try again in a moment")
        return await self._scorers.get(name)

    def state(self) -> PoolState:
        """What a page shows about the models."""
        failed = {version: failure.error.message for version, failure in self._failed.items()}
        return PoolState(dict(self._serving), tuple(self._loading), failed)

    async def close(self) -> None:
        """Let the answers under way end, then free every model."""
        self._closed = True
        for task in self._loading.values():
            task.cancel()
        await asyncio.gather(*self._loading.values(), *self._closing, return_exceptions=True)
        await asyncio.gather(*(loaded.engine.close() for loaded in self._loaded.values()))
        self._loaded.clear()

    async def _ready(self, name: str) -> _Loaded:
        while not self._closed:
            wanted = await self._resolve(name)
            self._let_go_of_broken()
            self._take_over(wanted)
            version = wanted if wanted in self._loaded else self._serving.get(name)
            if version != wanted:
                self._start_loading(wanted, retry=version is None)
            if version is not None:
                loaded = self._loaded[version]
                loaded.used = monotonic()
                loaded.asked = loaded.asked or name == version
                return loaded
            if wanted not in self._loading:
                raise self._failed[wanted].error
            await asyncio.shield(self._loading[wanted])
        raise Unavailable("the server is shutting down", hint="try again in a moment")

    async def _resolve(self, name: str) -> str:
        """The version a name stands for, asked of the registry again only when its folder has changed."""
        stamp = _stamp(self._registry.folder)
        if stamp != self._stamp:
            self._stamp = stamp
            self._wanted.clear()
            self._failed.clear()
        if name not in self._wanted:
            self._wanted[name] = await self._look_up(name)
        return self._wanted[name]

    async def _look_up(self, name: str) -> str:
        """Raises NotFound and ModelError, unless some version serves under this name: then that one stays."""
        try:
            version = await anyio.to_thread.run_sync(self._registry.resolve, name)
        except (TutelageError, OSError) as error:
            if name not in self._serving:
                raise
            log.error(
                "the alias %s cannot be followed, %s keeps serving: %s", name, self._serving[name], error
            )
            return self._serving[name]
        if version.kind != "chat":
            kind = KIND_NAMES[version.kind]
            raise NotFound(Sentence("{name} is a {kind} model and cannot chat", name=name, kind=kind))
        return version.name

    def _let_go_of_broken(self) -> None:
        """Forget the engines that have stopped by themselves: their versions are loaded anew."""
        for version in [version for version, each in self._loaded.items() if each.engine.broken]:
            log.error("the engine of version %s has stopped, it is loaded anew", version)
            self._serving = {name: served for name, served in self._serving.items() if served != version}
            self._close(version)

    def _start_loading(self, version: str, *, retry: bool) -> None:
        """Load a version in the background, unless that is under way or has just failed."""
        failure = self._failed.get(version)
        if failure is not None and not (retry and monotonic() - failure.at > RETRY_SECONDS):
            return
        if version not in self._loading:
            self._loading[version] = asyncio.create_task(self._load_one(version))

    async def _load_one(self, version: str) -> None:
        try:
            async with self._one_load:
                found = await anyio.to_thread.run_sync(self._registry.get, version)
                engine = await anyio.to_thread.run_sync(self._load, found)
        except TutelageError as error:
            log.error("version %s cannot be loaded: %s", version, error)
            self._failed[version] = _Failure(error, monotonic())
        except Exception as error:
            log.exception("version %s cannot be loaded", version)
            reason = ModelError(
                Sentence("version {version} cannot be loaded: {error}", version=version, error=error),
                hint="see the server's log",
            )
            self._failed[version] = _Failure(reason, monotonic())
        else:
            self._failed.pop(version, None)
            asked = version not in self._wanted_by_aliases()
            self._loaded[version] = _Loaded(engine, used=monotonic(), asked=asked)
            self._take_over(version)
        finally:
            del self._loading[version]

    def _wanted_by_aliases(self) -> dict[str, list[str]]:
        """Names of aliases, by the version they should follow."""
        aliases: dict[str, list[str]] = {}
        for name, version in self._wanted.items():
            if name != version:
                aliases.setdefault(version, []).append(name)
        return aliases

    def _take_over(self, version: str) -> None:
        """Let a loaded version serve every alias that wants it."""
        if version not in self._loaded:
            return
        names = self._wanted_by_aliases().get(version, [])
        if any(self._serving.get(name) != version for name in names):
            self._serving.update(dict.fromkeys(names, version))
            self._trim()

    def _trim(self) -> None:
        """Close the engines nobody uses: those no longer served, and of those asked for by name the oldest."""
        served = set(self._serving.values())
        others = {version: each for version, each in self._loaded.items() if version not in served}
        asked = sorted((v for v in others if others[v].asked), key=lambda v: others[v].used, reverse=True)
        for version, loaded in others.items():
            if loaded.users == 0 and version not in asked[: self._keep]:
                self._close(version)

    def _close(self, version: str) -> None:
        task = asyncio.create_task(self._loaded.pop(version).engine.close())
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)


def _stamp(folder: Path) -> Stamp:
    """Changes whenever a version is published or an alias moves: both rename something into the folder."""
    try:
        found = folder.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ino
