"""`tutelage train …`, `tutelage improve` and `tutelage worker`: from what people gave to a new version."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tutelage.cli.opening import opened_store
from tutelage.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from tutelage.improvement import Installation
    from tutelage.training.job import Stage, Trainer
    from tutelage.training.metrics import Progress

RecipeArgument = Annotated[Path, typer.Argument(help="A recipe: a TOML file, see recipes/.")]
SetOption = Annotated[
    list[str], typer.Option("--set", metavar="KEY=VALUE", help="Override a key of the recipe.")
]
ResumeOption = Annotated[bool, typer.Option("--resume", help="Go on with an unfinished run.")]
DryRunOption = Annotated[bool, typer.Option("--dry-run", help="Say what would be trained on, and stop.")]
NameOption = Annotated[str, typer.Option("--name", help="The run's name; by default the next number.")]
SnapshotOption = Annotated[
    str, typer.Option("--snapshot", help="Train on this snapshot instead of a new one.")
]
StartOption = Annotated[
    str,
    typer.Option("--start", help="Run or version whose adapter to start from; or the recipe's model itself."),
]
RewardOption = Annotated[str, typer.Option("--reward", help="Run or version of the reward model.")]
GoldOption = Annotated[
    str, typer.Option("--gold", help="A reward model of other data: the run ends where it stops agreeing.")
]
ProcessesOption = Annotated[
    int, typer.Option("--processes", min=1, help="Train in so many processes, each on a GPU of its own.")
]
RayOption = Annotated[
    str, typer.Option("--ray", metavar="ADDRESS", help="Train on this Ray cluster; `local` starts one here.")
]
NO_OVERRIDES: list[str] = []


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    train = typer.Typer(help="Train one stage as a run of its own.", no_args_is_help=True)
    train.command("sft", help="Supervised fine-tuning on demonstrations.")(_from_data("sft"))
    train.command("reward", help="The reward model, from comparisons.")(_from_data("reward"))
    train.command("ppo")(train_ppo)
    train.command("dpo", help="DPO, from comparisons alone: a baseline for PPO.")(_from_data("dpo"))
    app.add_typer(train, name="train")
    app.command("improve")(improve)
    app.command("worker")(worker)
    app.command("tidy")(tidy)


def _from_data(stage: Stage) -> Callable[..., None]:
    """The command of a stage that needs nothing but data."""

    def command(
        recipe: RecipeArgument,
        overrides: SetOption = NO_OVERRIDES,
        name: NameOption = "",
        start: StartOption = "",
        snapshot: SnapshotOption = "",
        resume: ResumeOption = False,
        processes: ProcessesOption = 1,
        ray: RayOption = "",
        dry_run: DryRunOption = False,
        as_json: JsonOption = False,
    ) -> None:
        options = {"name": name, "start": start, "snapshot": snapshot, "resume": resume}
        _train(stage, recipe, overrides, options, _trainer(processes, ray), dry_run=dry_run, as_json=as_json)

    return command


def train_ppo(
    recipe: RecipeArgument,
    overrides: SetOption = NO_OVERRIDES,
    name: NameOption = "",
    start: StartOption = "",
    reward: RewardOption = "",
    gold: GoldOption = "",
    snapshot: SnapshotOption = "",
    resume: ResumeOption = False,
    processes: ProcessesOption = 1,
    ray: RayOption = "",
    dry_run: DryRunOption = False,
    as_json: JsonOption = False,
) -> None:
    """PPO against a reward model, held near the SFT model."""
    inputs = {"start": start, "reward": reward, "gold": gold, "snapshot": snapshot}
    options = {"name": name, "resume": resume, **inputs}
    _train("ppo", recipe, overrides, options, _trainer(processes, ray), dry_run=dry_run, as_json=as_json)


def improve(
    recipe: RecipeArgument,
    overrides: SetOption = NO_OVERRIDES,
    processes: ProcessesOption = 1,
    ray: RayOption = "",
    as_json: JsonOption = False,
) -> None:
    """One round: snapshot, SFT, reward model, PPO, evaluation, candidate. Interrupted, it goes on where it was."""
    from tutelage.cli.reports import round_report
    from tutelage.config import load
    from tutelage.improvement import ImproveConfig
    from tutelage.improvement import improve as run_round

    config = load(recipe, ImproveConfig, overrides)
    with installation() as place, progress_bars() as progress:
        report = run_round(config, place, trainer=_trainer(processes, ray), progress=progress)
    emit(report, round_report(report), as_json=as_json)


def worker(
    processes: ProcessesOption = 1,
    ray: RayOption = "",
    once: Annotated[bool, typer.Option("--once", help="Take one request, then stop.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Carry out the rounds that operators ask for in the web page. Stopped, it leaves its round to the next worker."""
    from tutelage.worker import work

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)

    def tell(request: str, error: str | None) -> None:
        text = f"request {request}: " + ("done" if error is None else f"failed: {error}")
        emit({"request": request, "error": error}, escape(text), as_json=as_json)

    with installation() as place:
        work(place, trainer=_trainer(processes, ray), once=once, tell=tell)


def tidy(
    days: Annotated[float, typer.Option(min=0, help="Checkpoints of runs given up for so long go.")] = 30,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Delete checkpoints of runs that were given up, and drafts that broke off. Versions and snapshots stay."""
    from tutelage.config import home
    from tutelage.improvement import retention

    found = (retention.leftovers if dry_run else retention.tidy)(home(), days=days)
    result = {"folders": [str(each.path) for each in found], "bytes": sum(each.size for each in found)}
    lines = [*(escape(str(each.path)) for each in found), f"{len(found)} folders, {result['bytes']} bytes"]
    emit(result, "\n".join(lines), as_json=as_json)


@contextmanager
def installation() -> Iterator[Installation]:
    """The data folder with its store open. Warnings go to stderr, also while a round keeps its log."""
    from tutelage.config import home
    from tutelage.improvement import Installation
    from tutelage.registry import Registry

    if logging.lastResort is not None and not logging.root.handlers:
        logging.root.addHandler(logging.lastResort)
    folder = home()
    with opened_store() as store:
        yield Installation(folder, store, Registry(folder))


@contextmanager
def progress_bars() -> Iterator[Progress]:
    """A bar for each stage on stderr, with the newest metrics beside it."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description:<10}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[news]}"),
    )
    tasks: dict[str, Any] = {}
    with Bars(*columns, console=Console(stderr=True)) as bars:

        def progress(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if stage not in tasks:
                tasks[stage] = bars.add_task(stage, total=total, news="")
            shown = ("loss", "accuracy", "reward", "kl")
            news = "  ".join(f"{key} {metrics[key]:.3f}" for key in shown if key in metrics)
            bars.update(tasks[stage], completed=done, total=total, news=news)

        yield progress


def _trainer(processes: int, ray: str) -> Trainer:
    """Where a stage is trained."""
    if ray:
        from tutelage.training.cluster import train_on_ray

        return partial(train_on_ray, address=ray, processes=processes)
    if processes > 1:
        from tutelage.training.processes import in_processes

        return in_processes(processes)
    from tutelage.training.job import train

    return train


def _train(
    stage: Stage,
    recipe: Path,
    overrides: list[str],
    options: dict[str, Any],
    trainer: Trainer,
    *,
    dry_run: bool,
    as_json: bool,
) -> None:
    from tutelage.cli.reports import plain_report
    from tutelage.cli.reward_reports import doubt_lines, reward_report
    from tutelage.config import load
    from tutelage.evaluation.doubts import of_ppo
    from tutelage.improvement import StageRequest, describe_stage, train_stage
    from tutelage.training.job import SCHEMAS

    request = StageRequest(stage, load(recipe, SCHEMAS[stage], overrides), **options)
    with installation() as place:
        if dry_run:
            result = describe_stage(request, place)
            emit(result, plain_report(result), as_json=as_json)
            return
        with progress_bars() as progress:
            result = train_stage(request, place, trainer=trainer, progress=progress)
    summary = {"run": result["run"], "folder": result["folder"], **result["evaluation"]}
    told = (
        reward_report(summary)
        if stage == "reward"
        else "\n".join([plain_report(summary), *doubt_lines(of_ppo(summary))])
    )
    text = told + f"\npublish it with: tutelage versions publish {result['run']}"
    emit({**summary, "kind": result["kind"]}, text, as_json=as_json)
