"""The engines of a running server: which version answers, and how a new one takes over. No torch here.

A promotion is noticed by the alias file: the new version is loaded in a thread while the old one keeps
answering, then takes over; answers under way end on the old one, which is closed when nobody uses it.
A version that cannot be loaded leaves the old one serving, and `state()` says why.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from time import monotonic
from types import TracebackType
from typing import Protocol

import anyio.to_thread

from tutelage.engine.interface import Engine
from tutelage.errors import ModelError, TutelageError, Unavailable
from tutelage.registry import ModelVersion, Registry

log = logging.getLogger(__name__)

Load = Callable[[ModelVersion], Engine]


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

    def state(self) -> PoolState: ...

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Loaded:
    engine: Engine
    users: int = 0
    used: float = field(default_factory=monotonic)


class EnginePool:
    """Loads versions on demand; keeps those that an alias serves, and the `keep` last used of the others."""

    def __init__(self, registry: Registry, load: Callable[[ModelVersion], Engine], *, keep: int = 1) -> None:
        self._registry = registry
        self._load = load
        self._keep = keep
        self._loaded: dict[str, _Loaded] = {}
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._failed: dict[str, str] = {}
        self._serving: dict[str, str] = {}
        self._wanted: dict[str, str] = {}
        self._stamp: tuple[int, ...] | None = None
        self._closing: set[asyncio.Task[None]] = set()
        self._one_load = asyncio.Lock()
        self._closed = False
