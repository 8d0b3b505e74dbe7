"""What a reward model is worth, as text for the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.markup import escape

from tutelage.evaluation.doubts import of_reward


def reward_report(values: dict[str, Any]) -> str:
    """A run and its figures."""
    return f"{escape(values['run'])} in {escape(values['folder'])}\n{reward_figures(values)}"


def reward_figures(values: dict[str, Any]) -> str:
    """Accuracy whole and in parts beside two rules about length, calibration with its bins, disagreement."""
    left_out = ", ".join(f"{count} {reason}" for reason, count in values["left_out"].items()) or "nothing"
    lines = [
        f"{values['comparisons']} comparisons, {values['pairs']} pairs ({values['ties']} ties);"
        f" {values['held_out_comparisons']} comparisons held out; left out: {left_out}",
        *_both_sides(values),
        "",
        f"  {'held-out accuracy':<30}{'':>24}{'pairs':>9}",
    ]
    lines += [f"  {name:<30}{_interval(each):>24}{each['pairs']:>9}" for name, each in _accuracies(values)]
    return "\n".join([*lines, "", *_calibration(values["calibration"]), "", *_tail(values)])


def _both_sides(values: dict[str, Any]) -> list[str]:
    """Who could not be kept on one side of the split (see `tutelage.store.export.groups`)."""
    count = values.get("authors_on_both_sides")
    return [f"{count} people judged on both sides; no prompt stands on both"] if count else []


def _accuracies(values: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    members = values["member_accuracy"]
    rows = [("all members together", values["held_out_accuracy"])]
    rows += [(f"member {index}", each) for index, each in enumerate(members) if len(members) > 1]
    if "new_author_accuracy" in values:
        rows += [("people it did not learn from", values["new_author_accuracy"])]
    rows += [("rule: the longer one", values["length_baseline"])]
    rows += [("rule: as its source mostly is", values["majority_baseline"])]
    rows += [
        (f"{gap} rank{'s' if gap != '1' else ''} apart", each) for gap, each in values["by_rank_gap"].items()
    ]
    return rows + [(escape(source or "no source"), each) for source, each in values["by_source"].items()]


def _calibration(found: dict[str, Any]) -> list[str]:
    if found["error"] is None:
        return ["  calibration: nothing was held out"]
    lines = [
        f"  temperature {found['temperature']:.3f}: calibration error {found['error_before']:.3f} →"
        f" {found['error']:.3f}, log loss {found['log_loss_before']:.3f} → {found['log_loss']:.3f}",
        f"  {'how sure':<14}{'confidence':>12}{'accuracy':>12}{'pairs':>9}",
    ]
    return lines + [
        f"  {row['low']:.2f} to {row['high']:.2f}  {row['confidence']:>12.3f}{row['accuracy']:>12.3f}{row['pairs']:>9}"
        for row in found["bins"]
        if row["pairs"]
    ]


def _tail(values: dict[str, Any]) -> list[str]:
    lines = []
    if values["length_correlation"] is not None:
        lines.append(f"  rank correlation of reward and length: {values['length_correlation']:+.3f}")
    apart = values["disagreement"]
    if apart["deviation"] is not None:
        lines.append(
            f"  members deviate by {apart['deviation']:.3f} from their mean (the reward's unit is 1)"
            f" and are divided over {apart['split_pairs']:.0%} of the pairs"
        )
    return [*lines, *doubt_lines(of_reward(values))]


def doubt_lines(doubts: Sequence[str]) -> list[str]:
    """What to keep in mind when reading the figures."""
    return [f"  [yellow]mind:[/yellow] {escape(each)}" for each in doubts]


def _interval(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "no pairs"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
