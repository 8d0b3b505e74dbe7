"""Reports as text for the terminal."""

from __future__ import annotations

from typing import Any

from rich.markup import escape

from tutelage.cli.reward_reports import doubt_lines
from tutelage.evaluation.doubts import of_round
from tutelage.evaluation.gate import checks_of


def plain_report(values: dict[str, Any]) -> str:
    """One `name: value` line for each entry; nested entries are indented."""
    return "\n".join(_lines(values, 0))


def round_report(report: dict[str, Any]) -> str:
    """What a round changed: figures and answers, before and after."""
    evaluation = report["evaluation"]
    lines = [
        f"[bold]{report['round']}[/bold]  {evaluation['prompts']} prompts that no stage has trained on",
        "",
        round_figures(evaluation),
        "",
    ]
    for sample in evaluation["answers"]:
        lines.append(f"[dim]{'user':<10}[/dim]{_shorten(sample['prompt'][-1]['content'])}")
        lines += [
            f"[dim]{name.replace('_', ' '):<10}[/dim]{_shorten(each['text'])}"
            for name, each in sample["answers"].items()
        ]
        lines.append("")
    version = report["version"]
    lines.append(f"candidate: [bold]{version}[/bold] (reward model {report['reward_version']})")
    passed = evaluation["gate"]["outcome"] == "passed"
    lines.append(
        f"let people chat with it: tutelage versions promote {version}{'' if passed else ' --anyway'}"
    )
    return "\n".join(lines)


def round_figures(evaluation: dict[str, Any]) -> str:
    """The figures of a round's evaluation, speaker by speaker and stage by stage, and what the gate said."""
    speakers = evaluation["speakers"]
    ppo, reward, sft = evaluation["ppo"], evaluation["reward"], evaluation["sft"]
    baselines = [name for name in speakers if name not in ("before", "sft", "after")]
    names = ("before", "sft", *baselines, "after")
    rates = evaluation["baselines"] | {"after": evaluation["win_rate_over_before"]}
    rows = [
        ("", *(name.replace("_", " ") for name in names)),
        ("wins over before", *(_interval(rates[name]) if name in rates else "" for name in names)),
        ("judged reward", *(_interval(speakers[name]["judge"]) for name in names)),
        ("trained reward", *(_interval(speakers[name]["reward"]) for name in names)),
        ("flagged", *(str(speakers[name]["flagged"]) for name in names)),
        ("answer length", *(f"{speakers[name]['length']:.1f}" for name in names)),
        ("ended by itself", *(f"{speakers[name]['ended']:.0%}" for name in names)),
    ]
    lines = [f"  {first:<16}" + "".join(f"{cell:>26}" for cell in cells) for first, *cells in rows]
    lines += [
        "",
        f"  held-out SFT loss     {_number(sft['held_out_loss_before'])} → {_number(sft['held_out_loss'])}",
        f"  reward accuracy       {_interval(reward['held_out_accuracy'])} on {reward['held_out_accuracy']['pairs']}"
        f" held-out pairs (longer-is-better: {_interval(reward['length_baseline'])})",
        f"  PPO, held-out reward  {ppo['reward']['before']:.3f} → {ppo['reward']['after']:.3f},"
        f" gain {_interval(ppo['reward_gain'])}, KL {ppo['kl']['after']:.2f} nats",
        f"  less the penalty      {ppo['score']['before']:.3f} → {ppo['score']['after']:.3f},"
        f" gain {_interval(ppo['score_gain'])} (what PPO maximises)",
        *_watched(ppo),
        *doubt_lines(of_round(evaluation)),
        "",
        *gate_lines(evaluation),
    ]
    return "\n".join(lines)


def _watched(ppo: dict[str, Any]) -> list[str]:
    """Where a gold reward model saw PPO at its best, if one watched."""
    found = ppo.get("over_optimisation")
    if found is None:
        return []
    return [
        f"  watched               published is step {found['best_step']}; the run ended {_ending(ppo['stopped'])}"
    ]


def _ending(stopped: str) -> str:
    return stopped if stopped.startswith("at ") else f"early, {stopped}"


def gate_lines(evaluation: dict[str, Any]) -> list[str]:
    """What the gate asked, what it saw, and the outcome."""
    words = {"passed": "[green]passed[/green]", "failed": "[red]failed[/red]"}
    rows = [
        f"  {each.name:<22}{words.get(each.outcome, 'not enough data')}: {each.shown} (wanted: {each.wanted})"
        for each in checks_of(evaluation)
    ]
    return [
        f"  gate: {words.get(evaluation['gate']['outcome'], 'not enough data, so it does not pass')}",
        *rows,
    ]


def _lines(values: dict[str, Any], depth: int) -> list[str]:
    lines: list[str] = []
    for key, value in values.items():
        name = "  " * depth + key.replace("_", " ")
        if value in ("", None, [], {}):
            lines.append(f"{name}: none")
        elif isinstance(value, dict) and {"value", "low", "high"} <= value.keys():
            lines.append(f"{name}: {_interval(value)}")
        elif isinstance(value, dict):
            lines += [f"{name}:", *_lines(value, depth + 1)]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            rows = ("  ".join(f"{key} {_number(cell)}" for key, cell in row.items()) for row in value)
            lines += [f"{name}:", *(f"{'  ' * (depth + 1)}{row}" for row in rows)]
        elif isinstance(value, list):
            lines.append(escape(f"{name}: {', '.join(map(str, value))}"))
        else:
            lines.append(escape(f"{name}: {_number(value) if isinstance(value, float) else value}"))
    return lines


def _interval(value: dict[str, Any]) -> str:
    if value["value"] is None:
        return "no data"
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"


def _number(value: float | None) -> str:
    return "no data" if value is None else f"{value:.4g}"


def _shorten(text: str, length: int = 160) -> str:
    flat = " ".join(text.split())
    return escape(flat if len(flat) <= length else flat[: length - 1] + "…") or "[dim](nothing)[/dim]"
