"""How commands speak: text for people, or one JSON object for machines with `--json`."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer
from rich.console import Console

from tutelage.errors import TutelageError

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]


def emit(result: dict[str, Any], text: str, *, as_json: bool) -> None:
    """Print a command's result on stdout: `text` (rich markup allowed) or `result` as one line of JSON."""
    if as_json:
        print(json.dumps(result, ensure_ascii=False, default=str))
    else:
        Console(highlight=False, soft_wrap=True).print(text)


def fail(error: TutelageError) -> None:
    """Print an error on stderr, as JSON when the command line asked for JSON."""
    if "--json" in sys.argv:
        body = {"message": error.message, "where": error.where, "hint": error.hint}
        print(json.dumps({"error": body}, ensure_ascii=False), file=sys.stderr)
        return
    place = f"{error.where}: " if error.where else ""
    print(f"error: {place}{error.message}", file=sys.stderr)
    if error.hint:
        print(f"hint: {error.hint}", file=sys.stderr)
