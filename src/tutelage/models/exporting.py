"""A version as files that other programs run: an adapter, a whole Hugging Face folder, or GGUF; each with its card."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from tutelage.errors import DataError, InvalidRequest, ModelError
from tutelage.models.bases import describe_base
from tutelage.models.locate import locate
from tutelage.registry import ModelVersion, Registry
from tutelage.registry.card import CardFacts, ExportForm, card
from tutelage.registry.folders import whole_folder
from tutelage.registry.version import NAME
from tutelage.store import export as snapshots

README = "README.md"
# The types that each form can have; the first is the one it takes when nobody asks. An adapter has its own.
KINDS: dict[ExportForm, tuple[str, ...]] = {
    "peft": (),
    "safetensors": ("bf16", "f16", "f32"),
    "gguf": ("f16", "bf16", "q8_0", "f32"),
}
_TORCH_NAMES = {"bf16": "bfloat16", "f16": "float16", "f32": "float32"}


@dataclass(frozen=True, slots=True)
class ExportRequest:
    """Which version is written, in which form, and with which type of numbers; without `kind`, the form's own."""

    version: ModelVersion
    form: ExportForm
    kind: str | None = None


def export_version(request: ExportRequest, target: Path, home: Path) -> list[Path]:
    """Write a version into a new folder and return its files. The folder is there whole or not at all.

    Raises InvalidRequest when the version has no such form, Conflict when the folder exists, ModelError when the
    model cannot be read or written.
    """
    kind = _kind(request)
    try:
        with whole_folder(target) as draft:
            match request.form:
                case "peft":
                    _write_adapter(request.version, draft, home)
                case "safetensors":
                    _write_merged(request.version, draft, home, kind)
                case "gguf":
                    _write_gguf(request.version, draft, home, kind)
            names = sorted(str(path.relative_to(draft)) for path in draft.rglob("*") if path.is_file())
            facts = card_facts(request.version, home)
            text = card(replace(facts, form=request.form, files=names))
            (draft / README).write_text(text, encoding="utf-8")
    except (OSError, SafetensorError) as error:
        raise ModelError(
            f"the export cannot be written: {error}",
            where=str(target),
            hint="make room there, or name another folder; nothing was left half-written",
        ) from error
    return [target / name for name in [README, *names]]


def card_facts(version: ModelVersion, home: Path) -> CardFacts:
    """What the card of a version tells."""
    lineage = Registry(home).lineage(version.name)[1:]
    base = describe_base(version.model, home)
    try:
        counts = version.snapshot and snapshots.read_counts(home / "snapshots" / version.snapshot)
    except DataError:
        counts = None
    return CardFacts(version, lineage, base, counts or None)


def _kind(request: ExportRequest) -> str:
    """The type of numbers to write. Raises InvalidRequest for what the form or the version cannot give."""
    version, form, kinds = request.version, request.form, KINDS[request.form]
    if request.kind is not None and request.kind not in kinds:
        hint = (
            f"it can be {', '.join(kinds)}" if kinds else "leave out --type: an adapter is written as it is"
        )
        raise InvalidRequest(f"{form} has no type {request.kind!r}", param="type", hint=hint)
    if form == "peft" and version.adapter is None:
        raise InvalidRequest(
            f"{version.name} has no adapter", param="format", hint="use --format safetensors"
        )
    if form == "peft" and NAME.fullmatch(version.model):
        raise InvalidRequest(
            f"the adapter of {version.name} stands on {version.model}, whose weights are nowhere but here",
            param="format",
            hint="use --format safetensors, which folds it in",
        )
    if form != "peft" and version.kind == "reward":
        raise InvalidRequest(
            f"{version.name} is a reward model: its head has no place in {form}",
            param="format",
            hint="use --format peft, or serve it: POST /v1/rewards",
        )
    return request.kind or (kinds[0] if kinds else "")


def _write_adapter(version: ModelVersion, folder: Path, home: Path) -> None:
    """The adapter with its base named, and the tokenizer beside it, as other programs expect it."""
    from tutelage.models.saving import copy_text_files

    assert version.adapter is not None
    shutil.copytree(version.adapter, folder, dirs_exist_ok=True)
    base = describe_base(version.model, home).name
    for file in folder.rglob("adapter_config.json"):
        config: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
        config["base_model_name_or_path"] = base
        file.write_text(json.dumps(config, indent=2), encoding="utf-8")
    copy_text_files(locate(version.model, home), folder)


def _write_merged(version: ModelVersion, folder: Path, home: Path, kind: str) -> None:
    import torch

    from tutelage.models.loading import load_version
    from tutelage.models.saving import write_weights

    loaded = load_version(version, home, dtype="float32")
    write_weights(loaded.model, folder, _source(version, home), dtype=getattr(torch, _TORCH_NAMES[kind]))


def _write_gguf(version: ModelVersion, folder: Path, home: Path, kind: str) -> None:
    from tutelage.models.gguf_writer import write_gguf
    from tutelage.models.loading import load_version
    from tutelage.models.transformer import Transformer

    model = load_version(version, home, dtype="float32").model
    if not isinstance(model, Transformer):
        raise ModelError(
            f"{version.model} is not of the Llama family, and other families are not written as GGUF",
            hint="use --format safetensors, and llama.cpp's own converter",
        )
    base = describe_base(version.model, home)
    name = f"{base.name.rpartition('/')[2]}-{version.name}"
    target = folder / f"{name}-{kind}.gguf"
    write_gguf(model, _source(version, home), target, kind=kind, name=name, licence=base.licence or "")


def _source(version: ModelVersion, home: Path) -> Path:
    return version.weights if version.weights is not None else locate(version.model, home)
