"""What the content filter does with a score. A policy is data: a TOML file, checked when it is read."""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from tutelage.config import Settings, check
from tutelage.errors import ConfigError
from tutelage.moderation.categories import CATEGORIES, Category

Side = Literal["input", "output"]
Probability = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
DEFAULT_POLICY = Path(__file__).with_name("policy.toml")


class Thresholds(Settings):
    """From which score on a text is warned about, and from which it is blocked (never, where `block` is absent)."""

    warn: Probability
    block: Probability | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.block is not None and self.warn > self.block:
            raise ValueError(f"warn ({self.warn}) is above block ({self.block})")
        return self


class Help(Settings):
    """What is shown to somebody who may be about to hurt themselves."""

    english: str = Field(min_length=1)
    chinese: str = Field(min_length=1)


class Policy(Settings):
    """Thresholds per side and category, and what happens when the filter itself fails.

    A category that a side does not name is not enforced there.
    """

    name: str = Field(min_length=1, max_length=40, pattern=r"^[\w.-]+$")
    on_failure: Literal["open", "closed"]
    timeout_seconds: float = Field(gt=0, le=60)
    input: Mapping[Category, Thresholds]
    output: Mapping[Category, Thresholds]
    help: Help

    @model_validator(mode="after")
    def _intent_is_never_blocked(self) -> Self:
        for side in (self.input, self.output):
            intent = side.get("self-harm/intent")
            if intent is not None and intent.block is not None:
                raise ValueError(
                    "self-harm/intent is answered with help and cannot be blocked: remove its `block`"
                )
        return self

    @classmethod
    def load(cls, path: Path | None = None) -> Policy:
        """Read a policy file; the one shipped with the package when none is named.

        Raises ConfigError, with the key at fault, for unknown keys and categories, for values out of range and
        for `warn` above `block`.
        """
        path = path or DEFAULT_POLICY
        try:
            data = tomllib.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise ConfigError("there is no such policy file", where=str(path)) from None
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
            raise ConfigError(f"the policy cannot be read: {error}", where=str(path)) from error
        return check(data, cls, where=str(path))

    @property
    def version(self) -> str:
        """The name and a hash of the content: the same thresholds always carry the same version."""
        content = json.dumps(self.model_dump(), sort_keys=True, ensure_ascii=False)
        return f"{self.name}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"

    def strict(self, *sides: Side) -> Policy:
        """The same policy, but these sides block whatever they warn of, a wish to hurt oneself excepted."""
        return self.model_copy(
            update={
                side: {
                    name: limit
                    if name == "self-harm/intent"
                    else limit.model_copy(update={"block": limit.warn})
                    for name, limit in self.side(side).items()
                }
                for side in sides
            }
        )

    def side(self, side: Side) -> Mapping[Category, Thresholds]:
        return self.input if side == "input" else self.output

    def warned(self, scores: Mapping[str, float], side: Side) -> tuple[Category, ...]:
        """The categories whose score reaches their warning threshold."""
        limits = self.side(side)
        return tuple(
            name for name in CATEGORIES if name in limits and scores.get(name, 0.0) >= limits[name].warn
        )

    def blocked(self, scores: Mapping[str, float], side: Side) -> tuple[Category, ...]:
        """The categories whose score reaches their blocking threshold."""
        limits = ((name, self.side(side).get(name)) for name in CATEGORIES)
        return tuple(
            name
            for name, limit in limits
            if limit is not None and limit.block is not None and scores.get(name, 0.0) >= limit.block
        )
