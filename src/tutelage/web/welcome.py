"""What the empty chat says: examples, what the version that answers can do, and where it is known to be weak."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tutelage.errors import NotFound
from tutelage.registry import ModelVersion
from tutelage.server.services import Services
from tutelage.web.catalogue import Translate


@dataclass(frozen=True, slots=True)
class CurrentModel:
    """Which version answers, and whether it is in memory."""

    version: ModelVersion | None
    ready: bool

    def as_context(self) -> dict[str, Any]:
        """For templates."""
        return {"version": self.version.name if self.version else "", "model_ready": self.ready}


def current_model(parts: Services) -> CurrentModel:
    """The version that `stable` names."""
    try:
        version = parts.registry.resolve("stable")
    except NotFound:
        version = None
    return CurrentModel(version, "stable" in parts.engines.state().serving)


def welcome(t: Translate, version: ModelVersion | None) -> dict[str, Any]:
    """The three lists of the empty state."""
    return {
        "examples": examples(t),
        "capabilities": capabilities(t, version),
        "limits": limits(t, version),
    }


def examples(t: Translate) -> list[str]:
    """Questions to begin with."""
    return [
        t("Explain how a rainbow forms, in simple words"),
        t("Give me three ideas for a birthday dinner"),
        t("How do I read a CSV file in Python?"),
    ]


def capabilities(t: Translate, version: ModelVersion | None) -> list[str]:
    """What it can do; what was measured of this version comes first."""
    always = [
        t("Remembers what was said earlier in the conversation"),
        t("Takes corrections in later messages"),
        t("Is meant to decline harmful requests"),
    ]
    won = _figure(version, "win_rate_over_before")
    if won is None or version is None or not version.parents:
        return always
    share = f"{100 * won:.0f}"
    measured = t(
        "Was preferred to {before} in {share} % of {count} comparisons by the reward model",
        before=version.parents[0],
        share=share,
        count=_count(version),
    )
    return [measured, *always[:2]] if won > 0.5 else always


def limits(t: Translate, version: ModelVersion | None) -> list[str]:
    """Where it is weak: what its evaluation says, then what holds for every model of this kind."""
    said = version.evaluation.get("limits") if version else None
    measured = [text for text in said if isinstance(text, str)] if isinstance(said, list) else []
    always = [
        t("May state things that are wrong, and sound sure of them"),
        t("May answer differently when a question is worded differently"),
        t("Knows little of what happened after its training"),
    ]
    if version is not None and not version.evaluation:
        measured = [t("Has not been evaluated yet: nobody has measured how often it is wrong"), *measured]
    return [*measured, *always][: max(3, len(measured))]


def _figure(version: ModelVersion | None, name: str) -> float | None:
    """A figure of the evaluation, alone or with its interval."""
    value = version.evaluation.get(name) if version else None
    value = value.get("value") if isinstance(value, dict) else value
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _count(version: ModelVersion) -> int:
    prompts = version.evaluation.get("prompts")
    return prompts if isinstance(prompts, int) else 0
