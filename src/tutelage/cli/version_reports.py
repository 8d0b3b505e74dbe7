"""A version as text for the terminal: what it was made of, and how it did."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rich.markup import escape

from tutelage.cli.reports import plain_report, round_figures
from tutelage.cli.reward_reports import reward_figures

FACTS = ("kind", "model", "adapter", "weights", "created", "run", "snapshot", "code", "notes")


def version_report(version: dict[str, Any]) -> str:
    """`version` is `ModelVersion.as_dict()` with its `lineage` and `aliases`."""
    lines = [
        f"[bold]{version['name']}[/bold] {' '.join(version['aliases'])}".rstrip(),
        f"{'lineage':<11} {' ← '.join(version['lineage'])}",
        *(f"{fact:<11} {escape(str(version[fact]))}" for fact in FACTS if version[fact]),
    ]
    if version["config"]:
        lines += ["", "[bold]settings[/bold]", *_settings(version["config"])]
    if version["evaluation"]:
        lines += ["", "[bold]evaluation[/bold]", *_evaluation(version["evaluation"]).split("\n")]
    return "\n".join(lines)


def _evaluation(values: dict[str, Any]) -> str:
    """A round's, a reward model's or another stage's figures, in the form in which the end of the run told them."""
    if "speakers" in values:
        return f"{values['prompts']} prompts that no stage has trained on\n\n{round_figures(values)}"
    return reward_figures(values) if "member_accuracy" in values else plain_report(values)


def _settings(config: dict[str, Any]) -> list[str]:
    """The settings as `--set` takes them: a line for each stage of a round, or one for a single stage."""
    if not all(isinstance(settings, dict) for settings in config.values()):
        return [escape(" ".join(_assignments(config)))]
    return [escape(f"{stage:<11} {' '.join(_assignments(settings))}") for stage, settings in config.items()]


def _assignments(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict):
            yield from _assignments(value, f"{prefix}{key}.")
        elif value is not None:
            yield f"{prefix}{key}={value}"
