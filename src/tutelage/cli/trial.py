"""What has to be so before a version answers people: the gate let it pass, and it answers."""

from __future__ import annotations

import anyio

from tutelage import config
from tutelage.engine.pool import EnginePool
from tutelage.engine.torch_engine import load
from tutelage.errors import Conflict
from tutelage.evaluation.gate import refusal
from tutelage.registry import ModelVersion, Registry
from tutelage.server.serving import try_version


def check_gate(version: ModelVersion, *, anyway: bool) -> None:
    """Raises Conflict for a version that the gate refused, unless it is wanted `anyway`."""
    reason = refusal(version.evaluation)
    if reason is not None and not anyway:
        raise Conflict(
            f"{version.name} did not pass the gate ({reason})",
            hint="promote it with --anyway, if you know better",
        )


def ask(registry: Registry, version: ModelVersion) -> None:
    """Load a version and ask it a question. Raises ModelError for one that cannot answer."""
    if version.kind != "chat":
        return  # the registry says why it cannot serve
    home = config.home()

    async def load_and_ask() -> None:
        engines = EnginePool(registry, lambda each: load(each, home))
        try:
            await try_version(engines, version.name)
        finally:
            await engines.close()

    anyio.run(load_and_ask)
