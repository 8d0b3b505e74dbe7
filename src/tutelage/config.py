"""Where state lives, and recipes: TOML plus overrides become frozen, checked settings."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import pydantic
from platformdirs import user_data_dir

from tutelage.errors import ConfigError


class Settings(pydantic.BaseModel):
    """Base of every recipe: frozen, and an unknown key is an error."""

    model_config = pydantic.ConfigDict(frozen=True, extra="forbid", strict=True, protected_namespaces=())


SettingsT = TypeVar("SettingsT", bound=Settings)
Seed = Annotated[int, pydantic.Field(ge=0, lt=2**32)]
"""What every draw of a run follows from. The seeds made of it for members, prompts and steps fit into 64 bits."""


def home() -> Path:
    """The folder that holds all state: `TUTELAGE_HOME`, or the platform's user data directory.

    Made readable for its owner alone. Raises ConfigError when it cannot be made.
    """
    wanted = os.environ.get("TUTELAGE_HOME", "")
    try:
        folder = Path(wanted or user_data_dir("tutelage", appauthor=False)).expanduser()
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (
        OSError,
        RuntimeError,
    ) as error:  # RuntimeError: this user has no home folder, as in many containers
        reason, place = getattr(error, "strerror", error), getattr(error, "filename", wanted)
        raise ConfigError(
            f"the data folder cannot be made: {reason}",
            where=str(place),
            hint="set TUTELAGE_HOME to a folder you can write to",
        ) from error
    return folder.resolve()


def database() -> Path | str:
    """Where the rows are: the PostgreSQL address in `TUTELAGE_DATABASE_URL`, or a file in the data folder."""
    return os.environ.get("TUTELAGE_DATABASE_URL") or home() / "tutelage.db"


def load(path: Path, schema: type[SettingsT], overrides: Iterable[str] = ()) -> SettingsT:
    """Read a TOML recipe, apply `key.sub=value` overrides, and check it.

    Values of overrides are TOML; what is no TOML value is taken as a string.
    Raises ConfigError naming the file and the key, with the nearest known key as a hint.
    """
    try:
        with path.open("rb") as file:
            raw = tomllib.load(file)
    except FileNotFoundError:
        raise ConfigError("there is no such recipe", where=str(path), hint=_known_recipes(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the file cannot be read: {error}", where=str(path)) from error
    for override in overrides:
        _override(raw, override)
    return check(raw, schema, where=str(path))


def check(raw: dict[str, Any], schema: type[SettingsT], *, where: str = "") -> SettingsT:
    """Settings from a plain dict. Raises ConfigError that lists every wrong key."""
    try:
        return schema.model_validate(raw)
    except pydantic.ValidationError as error:
        problems = [_problem(schema, item["loc"], item["msg"], item["type"]) for item in error.errors()]
        raise ConfigError(
            "; ".join(text for text, _ in problems),
            where=where,
            hint="; ".join(dict.fromkeys(hint for _, hint in problems if hint)),
        ) from None


def _known_recipes(path: Path) -> str:
    folder = path.parent
    found = sorted(str(each) for each in folder.glob("*.toml") if each.name != "pyproject.toml")
    return (
        f"recipes in that folder: {', '.join(found)}"
        if found
        else "name a TOML file, e.g. recipes/quick.toml"
    )


def _override(raw: dict[str, Any], override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not key:
        raise ConfigError(
            f"an override is written key=value, not {override!r}", hint="e.g. --set sft.epochs=2"
        )
    *parents, last = key.strip().split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
        if not isinstance(raw, dict):
            raise ConfigError(f"{parent!r} in {key!r} is a value, not a section")
    try:
        raw[last] = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        raw[last] = value


def _problem(
    schema: type[Settings], location: Sequence[int | str], message: str, kind: str
) -> tuple[str, str]:
    key = ".".join(str(part) for part in location)
    if kind != "extra_forbidden":
        plain = message.removeprefix("Value error, ")
        return f"{key}: {plain[0].lower()}{plain[1:]}" if key else plain, ""
    known = _fields(schema, location[:-1])
    near = difflib.get_close_matches(str(location[-1]), known, n=1)
    return f"{key}: unknown key", f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"


def _fields(schema: type[pydantic.BaseModel], location: Sequence[int | str]) -> list[str]:
    """Names of the fields of the section at `location`."""
    for part in location:
        annotation = schema.model_fields[str(part)].annotation if str(part) in schema.model_fields else None
        if not (isinstance(annotation, type) and issubclass(annotation, pydantic.BaseModel)):
            return []
        schema = annotation
    return list(schema.model_fields)
