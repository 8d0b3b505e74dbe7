"""Chat in the terminal: the answer streams, the dialogue goes on, nothing is stored."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from pathlib import Path
from random import SystemRandom

from rich.console import Console

from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.errors import ContextTooLong
from tutelage.models.generation import Batch, Request
from tutelage.models.loading import load_version
from tutelage.registry import ModelVersion
from tutelage.rendering import Renderer

KEPT_BYTES = 1 << 28  # of the dialogue so far, so that the next turn reads only what is new
_random = SystemRandom()


def chat(version: ModelVersion, home: Path, sampling: Sampling, *, as_json: bool = False) -> None:
    """Talk to a version until the input ends; with `as_json`, each answer is one line of JSON on stdout."""
    console = Console(highlight=False, stderr=as_json)
    with console.status(f"loading {version.name}"):
        loaded = load_version(version, home, for_chat=True)
    console.print(
        f"[dim]{version.name} ({version.model}). /new begins anew, /again draws another answer, Ctrl+D leaves.[/]"
    )
    messages: list[Message] = []
    batch = Batch(loaded.model, loaded.renderer.stop_ids, slots=1, kept_bytes=KEPT_BYTES)
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
            answer = _answer(loaded.renderer, batch, messages, sampling, quiet=as_json)
        except ContextTooLong as error:
            console.print(f"[red]{error.message}[/]\n[dim]{error.hint}[/]")
            messages.pop()
            if as_json:
                print(json.dumps({"error": {"message": error.message}}, ensure_ascii=False), flush=True)
            continue
        messages.append(Message("assistant", answer))
        if as_json:
            print(json.dumps({"role": "assistant", "content": answer}, ensure_ascii=False), flush=True)


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


def _newest(renderer: Renderer, messages: list[Message], room: int) -> list[int]:
    """The prompt of the newest turns that have room, the oldest left out; of the last message in any case."""
    prompt = renderer.prompt(messages)
    while len(prompt) > room and len(messages) > 2:
        messages = messages[2:]
        prompt = renderer.prompt(messages)
    return prompt


def _answer(
    renderer: Renderer, batch: Batch, messages: list[Message], sampling: Sampling, *, quiet: bool
) -> str:
    """One answer, streamed to stdout unless `quiet`; Ctrl+C keeps what has been said."""
    prompt = _newest(renderer, messages, batch.context_length * 3 // 4)
    room = batch.context_length - len(prompt)
    request = Request(
        prompt_ids=prompt,
        # Half of what is left of the context at most: the next turn needs room, too.
        max_tokens=max(1, min(sampling.max_tokens or room, room // 2)),
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        seed=_random.getrandbits(63),
    )
    key = batch.add(request)
    decoder = renderer.decoder()
    said = ""

    def say(piece: str) -> None:
        nonlocal said
        said += piece
        if not quiet:
            print(piece, end="", flush=True)

    with suppress(KeyboardInterrupt):
        while batch.busy:
            say(decoder.push([token.token_id for token in batch.step() if token.finish_reason != "stop"]))
    batch.cancel(key)
    say(decoder.finish())
    say("" if quiet else "\n")
    return said.strip()
