"""One published version: a folder with a manifest and, for a tuned model, its adapter or its own weights.

versions/v3/manifest.json
versions/v3/adapter/adapter_config.json, adapter_model.safetensors     PEFT's own format
versions/r1/adapter/reward.json, members/0/, members/1/, …             a reward model: one adapter a member
versions/v4/weights/config.json, tokenizer.json, model.safetensors, …   a model that was fine-tuned whole
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, get_args

from tutelage.errors import ModelError, Sentence

VersionKind = Literal["chat", "reward"]
KINDS: tuple[VersionKind, ...] = get_args(VersionKind)
KIND_NAMES: dict[VersionKind, Sentence] = {"chat": Sentence("chat"), "reward": Sentence("reward")}
"""What the kinds are called in a sentence."""
PREFIXES: dict[VersionKind, str] = {"chat": "v", "reward": "r"}
NAME = re.compile(r"([vr])([1-9][0-9]{0,8})")
MANIFEST = "manifest.json"
ADAPTER = "adapter"
WEIGHTS = "weights"


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelVersion:
    """A version and where it came from. `model` is the base: `builtin`, `tiny`, a Hugging Face id or a path.

    `adapter` is what was trained on top of the base; `weights` is the whole model, where all of it was trained.
    Both are None when the base itself is served. `run`, `snapshot` and `parents` name what it was made by
    and of; `code` is the program that made it; `evaluation` is its report.
    """

    name: str
    kind: VersionKind
    model: str
    adapter: Path | None
    weights: Path | None
    parents: tuple[str, ...]
    created: datetime
    snapshot: str | None
    run: str | None
    config: dict[str, Any]
    code: str
    evaluation: dict[str, Any]
    notes: str
    path: Path

    @property
    def number(self) -> int:
        """Versions of a kind are numbered in the order they were published."""
        return int(self.name[1:])

    def as_dict(self) -> dict[str, Any]:
        """The version as plain JSON."""
        plain = {field: getattr(self, field) for field in self.__slots__}
        folders = {"adapter": self.adapter, "weights": self.weights, "path": self.path}
        places = {field: None if folder is None else str(folder) for field, folder in folders.items()}
        return plain | places | {"parents": list(self.parents), "created": self.created.isoformat()}


def kind_of(name: str) -> VersionKind:
    """`v…` is a chat model, `r…` a reward model."""
    return "chat" if name.startswith(PREFIXES["chat"]) else "reward"


def read_version(folder: Path) -> ModelVersion:
    """The version in a folder. Raises ModelError naming the file when its manifest is broken."""
    file = folder / MANIFEST
    try:
        fields = json.loads(file.read_text(encoding="utf-8"))
        return ModelVersion(
            name=folder.name,
            kind=kind_of(folder.name),
            model=_typed(fields, "model", str),
            adapter=folder / ADAPTER if _typed(fields, "adapter", bool) else None,
            weights=folder / WEIGHTS if _typed({"weights": False, **fields}, "weights", bool) else None,
            parents=tuple(_typed(fields, "parents", list)),
            created=datetime.fromisoformat(_typed(fields, "created", str)).astimezone(UTC),
            snapshot=_typed(fields, "snapshot", str | None),
            run=_typed(fields, "run", str | None),
            config=_typed(fields, "config", dict),
            code=_typed(fields, "code", str),
            evaluation=_typed(fields, "evaluation", dict),
            notes=_typed(fields, "notes", str),
            path=folder,
        )
    except PermissionError as error:
        raise closed(file, error) from error
    except (OSError, ValueError, TypeError) as error:
        hint = "Restore the file from a backup, or delete the version's folder."
        raise ModelError(
            Sentence("The manifest is broken: {error}.", error=error), where=str(file), hint=hint
        ) from error


def check_adapter(folder: Path) -> None:
    """Raises ModelError when a folder is not an adapter in PEFT's format, with its weights as safetensors.

    A folder with `members` holds one adapter in each of them.
    """
    hint = "Train it again, or publish another run."
    members = sorted((folder / "members").glob("*"))
    for member in members:
        check_adapter(member)
    if members:
        return
    if not folder.is_dir():
        raise ModelError("The adapter's folder is missing.", where=str(folder), hint=hint)
    if not (folder / "adapter_config.json").is_file():
        raise ModelError("The adapter has no adapter_config.json.", where=str(folder), hint=hint)
    if not any(file.stat().st_size for file in folder.glob("*.safetensors")):
        raise ModelError("The adapter's weights (*.safetensors) are missing.", where=str(folder), hint=hint)


def check_weights(folder: Path) -> None:
    """Raises ModelError when a folder is not a whole model in Hugging Face's layout, as safetensors."""
    hint = "Train it again, or publish another run."
    for name in ("config.json", "tokenizer.json"):
        if not (folder / name).is_file():
            raise ModelError(Sentence("The model has no {name}.", name=name), where=str(folder), hint=hint)
    if not any(file.stat().st_size for file in folder.glob("model*.safetensors")):
        raise ModelError(
            "The model's weights (model*.safetensors) are missing.", where=str(folder), hint=hint
        )


def closed(file: Path, error: PermissionError) -> ModelError:
    """A file that is whole, but for another user, as when root has worked for the user that serves."""
    return ModelError(
        Sentence("The file may not be read: {error}.", error=error.strerror),
        where=str(file),
        hint="Give it to the user that runs this program.",
    )


def write_json(file: Path, content: dict[str, Any]) -> None:
    """Replace a JSON file so that a reader, or a crash, finds the old one or the new one, never a part."""
    partial = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with partial.open("w", encoding="utf-8") as stream:
            json.dump(content, stream, ensure_ascii=False, indent=2)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(partial, file)
    finally:
        partial.unlink(missing_ok=True)


def read_json(file: Path) -> dict[str, Any]:
    """What `write_json` wrote. Raises ModelError naming the file when it is missing or broken."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(content, dict):
            raise ValueError("it is no JSON object")
    except PermissionError as error:
        raise closed(file, error) from error
    except (OSError, ValueError) as error:
        raise ModelError(
            Sentence("the file cannot be read: {error}", error=error),
            where=str(file),
            hint="restore it from a backup, or delete its folder and begin that run anew",
        ) from error
    return content


def _typed(fields: Any, key: str, kind: Any) -> Any:
    if not isinstance(fields, dict) or key not in fields:
        raise ValueError(f"{key!r} is missing")
    if not isinstance(fields[key], kind):
        raise ValueError(f"{key!r} is not what it should be")
    return fields[key]
