"""`tutelage compare`: policies side by side on prompts that none of them has seen."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from tutelage.cli.output import JsonOption, emit
from tutelage.cli.training import (
    NO_OVERRIDES,
    RecipeArgument,
    RewardOption,
    SetOption,
    installation,
)

PolicyOption = Annotated[
    list[str], typer.Option("--policy", help="Run or version to compare; can be given several times.")
]
StartOption = Annotated[
    str,
    typer.Option("--start", help="Run or version of the SFT model; by default what the policies began as."),
]
GoldOption = Annotated[str, typer.Option("--gold", help="A reward model of other data, which judges, too.")]
SnapshotOption = Annotated[
    str, typer.Option("--snapshot", help="Take prompts from this snapshot instead of a new one.")
]
BestOfOption = Annotated[
    list[int], typer.Option("--best-of", min=1, help="Also the SFT model's best of so many answers.")
]
AnswersOption = Annotated[
    int, typer.Option("--answers", min=1, help="Answers of each policy to each prompt.")
]
NO_POLICIES: list[str] = []
NO_SIZES: list[int] = []


def register(app: typer.Typer) -> None:
    """Add the command to the command line."""
    app.command("compare")(compare)


def compare(
    recipe: RecipeArgument,
    policies: PolicyOption = NO_POLICIES,
    start: StartOption = "",
    reward: RewardOption = "",
    gold: GoldOption = "",
    best_of: BestOfOption = NO_SIZES,
    answers: AnswersOption = 4,
    snapshot: SnapshotOption = "",
    overrides: SetOption = NO_OVERRIDES,
    as_json: JsonOption = False,
) -> None:
    """PPO, DPO and best-of-n beside the SFT model, on the held-out prompts of a PPO recipe."""
    from tutelage.config import load
    from tutelage.improvement.comparison import ComparisonRequest, compare_runs
    from tutelage.training.ppo_recipe import PPOConfig

    config = load(recipe, PPOConfig, overrides)
    request = ComparisonRequest(config, policies, start, reward, gold, best_of, answers, snapshot)
    with installation() as place:
        result = compare_runs(request, place)
    emit(result, table(result), as_json=as_json)


def table(result: dict[str, Any]) -> str:
    """A line for each policy."""
    rewards = ["gold", "reward"] if "gold" in result["policies"]["sft"] else ["reward"]
    columns = [*rewards, *(f"{name} win rate" for name in rewards), "KL", "length", "ended"]
    lines = [f"{'':<16}" + "".join(f"{name:>26}" for name in columns)]
    for name, row in result["policies"].items():
        cells = [_interval(row[key]) for key in rewards]
        cells += [_interval(row[f"{key}_win_rate"]) for key in rewards]
        cells += [f"{row['kl']:.2f}", f"{row['length']:.1f}", f"{row['ended']:.0%}"]
        lines.append(f"{name:<16}" + "".join(f"{cell:>26}" for cell in cells))
    return "\n".join([*lines, "", _counts(result)])


def _counts(result: dict[str, Any]) -> str:
    each = "1 answer" if result["answers"] == 1 else f"{result['answers']} answers"
    return f"{result['prompts']} prompts, {each} to each, 95 % intervals over prompts"


def _interval(value: dict[str, float]) -> str:
    return f"{value['value']:.3f} ({value['low']:.3f} to {value['high']:.3f})"
