"""Publishing what a training run left in its folder: `manifest.json`, and `adapter/` or `weights/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tutelage.errors import InvalidRequest, ModelError, Sentence
from tutelage.registry.catalogue import Registry
from tutelage.registry.version import ADAPTER, MANIFEST, WEIGHTS, ModelVersion, read_json


def publish_run(registry: Registry, folder: Path, *, notes: str = "") -> ModelVersion:
    """A new version from a finished run. Raises ModelError when the run is not finished or not whole.

    The manifest names kind, model, parents, snapshot, config and evaluation; the last four may be missing.
    """
    manifest = _manifest(folder / MANIFEST)
    adapter, weights = (made if made.is_dir() else None for made in (folder / ADAPTER, folder / WEIGHTS))
    try:
        return registry.publish(
            kind=manifest["kind"],
            model=str(manifest["model"]),
            files=adapter,
            weights=weights,
            parents=tuple(manifest.get("parents") or ()),
            snapshot=manifest.get("snapshot"),
            run=folder.resolve().name,
            config=manifest.get("config"),
            evaluation=manifest.get("evaluation"),
            notes=notes or str(manifest.get("notes", "")),
        )
    except (KeyError, TypeError, InvalidRequest) as error:
        hint = "Was it written by `tutelage`? Train again."
        where = str(folder / MANIFEST)
        raise ModelError(
            Sentence("The manifest is broken: {error}.", error=error), where=where, hint=hint
        ) from error


def _manifest(file: Path) -> dict[str, Any]:
    if not file.exists():
        hint = "Name a finished run, such as sft-0001, or its folder."
        raise ModelError("This run has no manifest.", where=str(file), hint=hint)
    return read_json(file)
