"""What a stage starts from: finished runs and versions, by name, or the newest that fits."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from tutelage.errors import InvalidRequest, ModelError, NotFound
from tutelage.improvement.naming import RUN_NAME
from tutelage.registry import ModelVersion, VersionKind
from tutelage.registry.version import ADAPTER, MANIFEST, NAME, WEIGHTS, read_json
from tutelage.training.job import Stage

if TYPE_CHECKING:
    from tutelage.improvement.stages import Installation

log = logging.getLogger(__name__)


def find_start(place: Installation, name: str, model: str) -> Path | None:
    """The SFT model's adapter on the base `model`; None where that base is the SFT model itself.

    It is where `name` says so, and without a name for a version on which no SFT run was made.
    Raises what `find_adapter` raises.
    """
    itself = NAME.fullmatch(model) and not _runs_on(place, "sft", model)
    return None if name == model or (not name and itself) else find_adapter(place, name, "sft", model)


def find_adapter(place: Installation, name: str, stage: Stage, model: str) -> Path:
    """The adapter of a version or a finished run; without a name, of the stage's newest finished run on `model`.

    Raises NotFound where there is none, InvalidRequest where it belongs to another base.
    """
    found = find_made(place, name, stage, model)
    if found.name == ADAPTER:
        return found
    if NAME.fullmatch(found.parent.name):
        hint = f"name it as the model: --set model={found.parent.name}"
    else:
        hint = (
            f"publish it (`tutelage versions publish {found.parent.name}`), then name the version as the model: "
            "--set model=v2"
        )
    raise NotFound(f"{found.parent.name} trained all weights: it has no adapter to start from", hint=hint)


def find_made(place: Installation, name: str, stage: Stage, model: str) -> Path:
    """What a version or a finished run holds, a folder `adapter` or `weights`; as `find_adapter` otherwise."""
    run = place.home / "runs" / name
    if not name:
        fitting = _runs_on(place, stage, model)
        if not fitting:
            raise NotFound(
                f"there is no finished {stage} run on {model}",
                hint=f"run `tutelage train {stage} RECIPE` first",
            )
        return _made_by(fitting[-1])
    wanted: VersionKind = "reward" if stage == "reward" else "chat"
    if RUN_NAME.fullmatch(name) and (run / MANIFEST).exists():
        base, found, kind = _base_of(run), _made_by(run), read_json(run / MANIFEST).get("kind", wanted)
    else:
        version = _version(place, name, wanted)
        made, kind = version.adapter or version.weights, version.kind
        if made is None:
            raise NotFound(
                f"{name} is {version.model} as it came: there is nothing to start from",
                hint="name an SFT run or a tuned version",
            )
        base, found = version.model, made
    if kind != wanted:
        raise InvalidRequest(
            f"{name} is a {kind} model, and what is wanted here is a {wanted} model",
            hint="chat models come from sft, dpo and ppo, reward models from reward",
        )
    if not _same_base(base, model):
        raise InvalidRequest(
            f"{name} belongs to the base {base}, and the recipe's model is {model}",
            hint=f"set the recipe's model to {base}, or name what was trained on {model}",
        )
    return found


def _version(place: Installation, name: str, kind: VersionKind) -> ModelVersion:
    """The version of that name. Raises NotFound, which tells the finished runs too."""
    try:
        return place.registry.resolve(name, kind=kind)
    except NotFound:
        runs = sorted(file.parent.name for file in (place.home / "runs").glob(f"*/{MANIFEST}"))
        if not runs or NAME.fullmatch(name):
            raise
        raise NotFound(
            f"there is neither a finished run nor a version {name!r}",
            hint=f"runs: {', '.join(runs)}; `tutelage versions list` tells the versions",
        ) from None


def _runs_on(place: Installation, stage: Stage, model: str) -> list[Path]:
    """The finished runs of a stage on a base, oldest first. One whose manifest is broken is passed over."""
    manifests = (place.home / "runs").glob(f"{stage}-*/{MANIFEST}")
    found = []
    for run in (file.parent for file in sorted(manifests, key=lambda file: (file.stat().st_mtime_ns, file))):
        try:
            if _same_base(_base_of(run), model):
                found.append(run)
        except ModelError as error:
            log.warning("the run %s is passed over: %s", run.name, error)
    return found


def _made_by(run: Path) -> Path:
    return run / (WEIGHTS if (run / WEIGHTS).is_dir() else ADAPTER)


def _base_of(run: Path) -> str:
    """The model that a finished run trained."""
    return str(read_json(run / MANIFEST).get("model", ""))


def _same_base(one: str, other: str) -> bool:
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())
