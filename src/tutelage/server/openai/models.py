"""`/v1/models`: every chat version by its name, and the aliases that point to them."""

from __future__ import annotations

from contextlib import suppress
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request

from tutelage.errors import ModelError, NotFound
from tutelage.registry import LATEST, ModelVersion, Registry
from tutelage.server.errors import UnknownModel
from tutelage.server.permissions import api_key
from tutelage.server.services import services
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")

Key = Annotated[ApiKey, Depends(api_key("chat"))]


@router.get("/models")
async def list_models(request: Request, key: Key) -> dict[str, Any]:
    """All names that `model` may be."""
    return {"object": "list", "data": await run_sync(_all, services(request).registry)}


@router.get("/models/{name}")
async def retrieve_model(request: Request, name: str, key: Key) -> dict[str, Any]:
    """One name. An alias is shown under its own name."""
    registry = services(request).registry
    try:
        version = await run_sync(registry.resolve, name)
    except NotFound as error:
        raise UnknownModel(error.message, hint=error.hint) from None
    if version.kind != "chat":
        raise UnknownModel(f"{version.name} is a {version.kind} model and cannot chat")
    return _view(name, version)


def _all(registry: Registry) -> list[dict[str, Any]]:
    """Aliases first, `latest` among them; a version whose manifest cannot be read is left out."""
    versions = {version.name: version for version in registry.survey()[0] if version.kind == "chat"}
    aliases = dict(registry.aliases())
    with suppress(NotFound, ModelError):
        aliases[LATEST] = registry.resolve(LATEST).name
    named = {alias: versions[name] for alias, name in aliases.items() if name in versions}
    return [_view(name, version) for name, version in {**named, **versions}.items()]


def _view(name: str, version: ModelVersion) -> dict[str, Any]:
    return {
        "id": name,
        "object": "model",
        "created": int(version.created.timestamp()),
        "owned_by": "tutelage",
    }
