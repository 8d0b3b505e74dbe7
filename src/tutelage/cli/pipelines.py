"""`tutelage generate`, `tutelage score` and `tutelage chat`: a version at work in a pipe or a terminal."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

VersionOption = Annotated[
    str, typer.Option("--version", help="A version (v2), an alias (stable) or `latest`.")
]
RewardOption = Annotated[str, typer.Option("--reward", help="A reward version (r1), or `latest`.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    app.command("generate")(generate)
    app.command("score")(score)
    app.command("chat")(chat)


def generate(
    version: VersionOption = "stable",
    temperature: Annotated[
        float, typer.Option(min=0, max=2, help="0 always takes the likeliest token.")
    ] = 0.7,
    top_p: Annotated[
        float, typer.Option(min=0, max=1, help="Draw from the likeliest tokens up to this share.")
    ] = 0.95,
    max_tokens: Annotated[int, typer.Option(min=1, help="Longest answer, in tokens.")] = 512,
    seed: Annotated[int, typer.Option(help="The same seed gives the same answers.")] = 0,
) -> None:
    """Answer dialogues: JSONL in, JSONL out, in the same order.

    In: {"messages": […]} ending with the user. Out: {"completion": …, "finish_reason": "stop" or "length"}, or
    {"error": {…}} for a line that cannot be answered; the exit code is then 1.
    """
    from tutelage.config import home
    from tutelage.pipelines import GenerateSettings, generate_lines
    from tutelage.registry import Registry

    settings = GenerateSettings(temperature, top_p, max_tokens, seed)
    folder = home()
    found = Registry(folder).resolve(version)
    _leave(generate_lines(sys.stdin.buffer, sys.stdout, found, folder, settings))


def score(reward: RewardOption = "latest") -> None:
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
    temperature: Annotated[float, typer.Option(min=0, max=2)] = 0.7,
    top_p: Annotated[float, typer.Option(min=0, max=1)] = 0.95,
) -> None:
    """Chat in the terminal. /new begins anew, /again draws another answer, Ctrl+C stops an answer, Ctrl+D leaves."""
    from tutelage.config import home
    from tutelage.registry import Registry
    from tutelage.terminal import chat as run_chat

    folder = home()
    run_chat(Registry(folder), folder, version, temperature=temperature, top_p=top_p)


def _leave(failed: int) -> None:
    if failed:
        raise typer.Exit(1)
