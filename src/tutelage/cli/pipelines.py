"""`tutelage generate`, `tutelage score` and `tutelage chat`: a version at work in a pipe or a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, BinaryIO

import typer

from tutelage.cli.output import JsonOption
from tutelage.errors import DataError, InvalidRequest

if TYPE_CHECKING:
    from tutelage.registry import ModelVersion
    from tutelage.training.reward_model import Judge

VersionOption = Annotated[
    str, typer.Option("--version", help="A version (v2), an alias (stable) or `latest`.")
]
RewardOption = Annotated[str, typer.Option("--reward", help="A reward version (r1), or `latest`.")]
PromptOption = Annotated[
    str, typer.Option("--prompt", help="A prompt to score answers to, instead of a file.")
]
AnswerOption = Annotated[list[str], typer.Option("--answer", help="An answer to it; may be repeated.")]
NO_ANSWERS: list[str] = []
TemperatureOption = Annotated[float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")]
TopPOption = Annotated[
    float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens up to this share.")
]
LinesOption = Annotated[bool, typer.Option("--json", help="Accepted for symmetry: lines are JSON anyway.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("generate")(generate)
    app.command("score")(score)
    app.command("chat")(chat)


def generate(
    version: VersionOption = "stable",
    temperature: TemperatureOption = 0.7,
    top_p: TopPOption = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
    as_json: LinesOption = True,
) -> None:
    """Answer dialogues: JSONL in, JSONL out, in the same order.

    In: {"messages": […]} ending with the user. Out: {"completion": …, "finish_reason": "stop" or "length"}, or
    {"error": {…}} for a line that cannot be answered; the exit code is then 1.
    """
    from tutelage.config import home
    from tutelage.engine.interface import Sampling
    from tutelage.pipelines import generate_lines

    folder = home()
    sampling = Sampling(temperature=temperature, top_p=top_p, max_tokens=max_tokens, seed=seed)
    _leave(generate_lines(sys.stdin.buffer, sys.stdout, _speaker(folder, version), folder, sampling))


def score(
    file: Annotated[str, typer.Argument(help="A file of JSON lines; - is standard input.")] = "-",
    reward: RewardOption = "latest",
    prompt: PromptOption = "",
    answers: AnswerOption = NO_ANSWERS,
    as_json: JsonOption = False,
) -> None:
    """Score answers with a reward model: JSON lines in, JSON lines out, in the same order.

    In: {"messages": […]} ending with the assistant, {"prompt": …, "completion": …} or {"prompt": …,
    "completions": […]}. Out: {"reward": …, "deviation": …}, or {"rewards": […], "best": …}, or {"error": {…}}
    for a line that cannot be scored; the exit code is then 1. With --prompt and --answer, one table for these
    alone (with --json, one line).
    """
    from tutelage.config import home
    from tutelage.pipelines import score_lines
    from tutelage.registry import Registry
    from tutelage.training.reward_model import load_judge

    if bool(prompt) != bool(answers) or (prompt and file != "-"):
        raise InvalidRequest(
            "--prompt goes with --answer, and with no file",
            hint="give both, or a file of JSON lines",
        )
    folder = home()
    found = Registry(folder).resolve(reward, kind="reward")
    if prompt:
        _score_one(load_judge(found, folder), prompt, answers, as_json=as_json)
    elif file == "-":
        _leave(score_lines(sys.stdin.buffer, sys.stdout, load_judge(found, folder)))
    else:
        with _opened(Path(file)) as lines:
            _leave(score_lines(lines, sys.stdout, load_judge(found, folder), file=file))


def _score_one(judge: Judge, prompt: str, answers: list[str], *, as_json: bool) -> None:
    from rich.markup import escape

    from tutelage.cli.output import emit
    from tutelage.pipelines import scorable, score_view

    asked = scorable({"prompt": prompt, "completions": answers}, judge.loaded)
    (scores,) = judge.score([(asked.prompt, asked.completions)])
    view = score_view(scores, judge.reward.temperature, several=True)
    lines = [f"{'reward':>8}{'deviation':>11}{'wins':>7}  answer"]
    lines += [
        f"{row['reward']:>8.3f}{row['deviation']:>11.3f}"
        + (f"{row['wins']:>7.0%}" if len(answers) > 1 else f"{'':>7}")
        + f"  {escape(' '.join(text.split()))}"
        for row, text in zip(view["rewards"], answers, strict=True)
    ]
    emit(view, "\n".join(lines), as_json=as_json)


def _opened(file: Path) -> BinaryIO:
    try:
        return file.open("rb")
    except OSError as error:
        raise DataError(f"the file cannot be read: {error.strerror}", path=file) from None


def chat(
    version: VersionOption = "stable",
    temperature: TemperatureOption = 0.7,
    top_p: TopPOption = 0.95,
    as_json: JsonOption = False,
) -> None:
    """Chat in the terminal. /new begins anew, /again draws another answer, Ctrl+C stops an answer, Ctrl+D leaves."""
    from tutelage.config import home
    from tutelage.engine.interface import Sampling
    from tutelage.terminal import chat as run_chat

    folder = home()
    sampling = Sampling(temperature=temperature, top_p=top_p)
    run_chat(_speaker(folder, version), folder, sampling, as_json=as_json)


def _speaker(home: Path, name: str) -> ModelVersion:
    """The chat version of a name; on a fresh installation, the built-in model is the first.

    Raises InvalidRequest for a reward version.
    """
    from tutelage.registry import Registry

    registry = Registry(home)
    if not registry.list("chat"):
        registry.begin()
    version = registry.resolve(name)
    if version.kind != "chat":
        raise InvalidRequest(
            f"{version.name} is a reward model and cannot chat",
            hint="name a chat version; `tutelage score` asks reward models",
        )
    return version


def _leave(failed: int) -> None:
    if failed:
        raise typer.Exit(1)
