"""`tutelage generate`, `tutelage score` and `tutelage chat`: a version at work in a pipe or a terminal."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tutelage.cli.output import JsonOption

if TYPE_CHECKING:
    from tutelage.registry import Registry

VersionOption = Annotated[
    str, typer.Option("--version", help="A version (v2), an alias (stable) or `latest`.")
]
RewardOption = Annotated[str, typer.Option("--reward", help="A reward version (r1), or `latest`.")]
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
    _leave(generate_lines(sys.stdin.buffer, sys.stdout, _registry(folder).resolve(version), folder, sampling))


def score(reward: RewardOption = "latest", as_json: LinesOption = True) -> None:
    """Score dialogues: JSONL in, JSONL out, in the same order.

    In: {"messages": […]} ending with the assistant. Out: {"reward": …}, or {"error": {…}} for a line that cannot be
    scored; the exit code is then 1.
    """
    from tutelage.config import home
    from tutelage.pipelines import score_lines
    from tutelage.registry import Registry

    folder = home()
    found = Registry(folder).resolve(reward, kind="reward")
    _leave(score_lines(sys.stdin.buffer, sys.stdout, found, folder))


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
    run_chat(_registry(folder), folder, version, sampling, as_json=as_json)


def _registry(home: Path) -> Registry:
    """The versions; on a fresh installation, the built-in model is the first."""
    from tutelage.registry import Registry

    registry = Registry(home)
    if not registry.list("chat"):
        registry.begin("builtin")
    return registry


def _leave(failed: int) -> None:
    if failed:
        raise typer.Exit(1)
