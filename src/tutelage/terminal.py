"""Chat in the terminal: the answer streams, the dialogue goes on, nothing is stored."""

from __future__ import annotations

import sys
from pathlib import Path
from random import SystemRandom

from rich.console import Console

from tutelage.dialogue import Message
from tutelage.errors import ContextTooLong, NotFound
from tutelage.models.generation import Batch, Request
from tutelage.models.loading import LoadedModel
from tutelage.pipelines import load_version
from tutelage.registry import Registry

_random = SystemRandom()


def chat(registry: Registry, home: Path, name: str, *, temperature: float, top_p: float) -> None:
    """Talk to a version until the input ends. On a fresh installation that is the built-in model."""
    console = Console(highlight=False)
    try:
        version = registry.resolve(name)
    except NotFound:
        if name != "stable" or registry.list("chat"):
            raise
        version = registry.promote(registry.publish(kind="chat", model="builtin").name)
    with console.status(f"loading {version.name}"):
        loaded = load_version(version, home)
    console.print(
        f"[dim]{version.name} ({version.model}). /new begins anew, /again draws another answer, Ctrl+D leaves.[/]"
    )
    messages: list[Message] = []
    while (text := _ask(console)) is not None:
        if text == "/new":
            messages = []
            console.print("[dim]a new dialogue[/]")
            continue
        if text == "/again":
            if not messages:
                continue
            messages = messages[:-1] if messages[-1].role == "assistant" else messages
        elif text:
            messages.append(Message("user", text))
        else:
            continue
        try:
            answer = _answer(loaded, messages, temperature=temperature, top_p=top_p)
        except ContextTooLong as error:
            console.print(f"[red]{error.message}[/]\n[dim]{error.hint}[/]")
            messages.pop()
            continue
        messages.append(Message("assistant", answer))


def _ask(console: Console) -> str | None:
    """The next line, or None at the end of the input."""
    try:
        if sys.stdin.isatty():
            return console.input("[bold]you[/] ").strip()
        line = sys.stdin.readline()
        return line.strip() if line else None
    except (EOFError, KeyboardInterrupt):
        console.print()
        return None


def _answer(loaded: LoadedModel, messages: list[Message], *, temperature: float, top_p: float) -> str:
    """Stream one answer to stdout; Ctrl+C keeps what has been said."""
    renderer = loaded.renderer
    batch = Batch(loaded.model, renderer.stop_ids, slots=1)
    prompt = renderer.prompt(messages)
    room = batch.context_length - len(prompt)
    seed = _random.getrandbits(63)
    batch.add(
        Request(prompt_ids=prompt, max_tokens=max(1, room), temperature=temperature, top_p=top_p, seed=seed)
    )
    decoder = renderer.decoder()
    said = ""
    try:
        while batch.busy:
            ids = [token.token_id for token in batch.step() if token.finish_reason != "stop"]
            piece = decoder.push(ids)
            said += piece
            print(piece, end="", flush=True)
    except KeyboardInterrupt:
        pass
    rest = decoder.finish()
    print(rest)
    return said + rest
