"""`tutelage moderate` and `tutelage train-filter`: the content filter from the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer
from rich.markup import escape

from tutelage.cli.output import JsonOption, emit
from tutelage.errors import ConfigError, InvalidRequest

if TYPE_CHECKING:
    from tutelage.moderation.gate import Gate, Verdict
    from tutelage.moderation.report import Report

_READ_AT_ONCE = 1 << 16
_WORTH_SHOWING = 0.05

Line = tuple[int, bytes]


class SideName(StrEnum):
    """Whose words are judged: a person's, or the model's."""

    input = "input"
    output = "output"


SideOption = Annotated[SideName, typer.Option("--side", help="Judge as a person's words, or as the model's.")]
PolicyOption = Annotated[
    Path | None, typer.Option("--policy", help="A policy file; the default is the one the server uses.")
]


def register(app: typer.Typer) -> None:
    """Add the two commands to the command line."""
    app.command("moderate")(moderate)
    app.command("train-filter")(train_filter)


def moderate(
    texts: Annotated[list[str] | None, typer.Argument(help="Texts to judge; without any, see above.")] = None,
    policy: PolicyOption = None,
    side: SideOption = SideName.input,
    as_json: JsonOption = False,
) -> None:
    """Say what the content filter finds in a text.

    Without TEXTS, a filter for pipelines: JSON lines {"text": …} on standard input, a JSON line
    {"flagged": …, "scores": {…}} for each on standard output, in the same order and at once. A line that cannot be
    read is answered with {"error": {"message": …, "line": …}}, and the exit code is then 1.
    """
    gate = _gate(policy)
    if texts:
        _judge(gate, texts, side, as_json=as_json)
        return
    if sys.stdin.isatty():
        raise InvalidRequest(
            "there is no text to judge", hint='tutelage moderate "some text", or pipe in JSON lines'
        )
    if not _filter(gate, side, sys.stdin.buffer):
        raise typer.Exit(1)


def train_filter(
    data: Annotated[Path, typer.Option("--data", help="The folder that holds the labelled sets.")],
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Where to write; the default is where this installation's server looks."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help='Your own: JSON lines {"text": …, "categories": […]}, empty if harmless.'
        ),
    ] = None,
    report: Annotated[Path | None, typer.Option("--report", help="Write all figures here, as JSON.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Train the content filter on labelled text, and measure it on what it was not trained on."""
    from tutelage import config
    from tutelage.moderation.gate import own_policy, own_weights
    from tutelage.moderation.policy import Policy
    from tutelage.moderation.training import train

    home = config.home()
    target = out or own_weights(home)
    if report is not None and not report.absolute().parent.is_dir():
        raise ConfigError(
            "there is no folder for the report", where=str(report), hint="make the folder first"
        )
    target.parent.mkdir(parents=True, exist_ok=True)
    policy = Policy.load(own_policy(home))
    model, figures = train(data, policy, labels=labels, say=lambda line: print(line, file=sys.stderr))
    model.save(target)
    if report is not None:
        report.write_text(json.dumps(figures.as_dict(), indent=1) + "\n", encoding="utf-8")
    result = {"weights": str(target), **figures.as_dict()}
    emit(result, f"{escape(_table(figures))}\n\nWritten to {escape(str(target))}", as_json=as_json)


def _gate(policy: Path | None) -> Gate:
    from tutelage import config
    from tutelage.moderation.gate import default_gate

    return default_gate(config.home(), policy=policy)


def _judge(gate: Gate, texts: Sequence[str], side: SideName, *, as_json: bool) -> None:
    verdicts = [gate.check(text, side=side.value) for text in texts]
    result = {"results": [verdict.as_dict() for verdict in verdicts]}
    emit(result, "\n\n".join(escape(_describe(verdict)) for verdict in verdicts), as_json=as_json)


def _describe(verdict: Verdict) -> str:
    names = f": {', '.join(verdict.categories)}" if verdict.categories else ""
    ranked = sorted(verdict.scores.items(), key=lambda item: -item[1])
    lines = [f"  {score:.2f}  {name}" for name, score in ranked if score >= _WORTH_SHOWING]
    return "\n".join([f"{verdict.state}{names}", *lines, *([verdict.help] if verdict.help else [])])


def _filter(gate: Gate, side: SideName, source: BinaryIO) -> bool:
    """Answer each line of the source; whether all could be read."""
    all_read = True
    for batch in _batches(source):
        answers = _answers(gate, side, batch)
        all_read = all_read and not any("error" in answer for answer in answers)
        sys.stdout.write("".join(json.dumps(answer) + "\n" for answer in answers))
        sys.stdout.flush()
    return all_read


def _batches(source: BinaryIO) -> Iterator[list[Line]]:
    """Numbered lines, as many together as have arrived: none waits for the next one. Blank lines are no rows."""
    number, rest = 0, b""
    while arrived := source.read1(_READ_AT_ONCE):  # type: ignore[attr-defined]
        *lines, rest = (rest + arrived).split(b"\n")
        yield [(number + place, line) for place, line in enumerate(lines, 1) if line.strip()]
        number += len(lines)
    if rest.strip():
        yield [(number + 1, rest)]


def _answers(gate: Gate, side: SideName, batch: Sequence[Line]) -> list[dict[str, Any]]:
    from tutelage.moderation.openai import openai_result

    rows = [_text(line) for _, line in batch]
    scores = iter(gate.classifier.score([row for row in rows if isinstance(row, str)]))
    answers: list[dict[str, Any]] = []
    for (number, _), row in zip(batch, rows, strict=True):
        if isinstance(row, ValueError):
            answers.append({"error": {"message": str(row), "line": number}})
            continue
        result = openai_result(next(scores), gate.policy, side=side.value)
        rounded = {name: round(score, 6) for name, score in result["category_scores"].items()}
        answers.append({"flagged": result["flagged"], "scores": rounded})
    return answers


def _text(line: bytes) -> str | ValueError:
    """The text of a row, or what is wrong with it."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        return ValueError("this line is not UTF-8")
    except (json.JSONDecodeError, RecursionError) as error:
        return ValueError(f"this line is not JSON: {error}")
    text = row.get("text") if isinstance(row, dict) else None
    return text if isinstance(text, str) else ValueError('a row is an object with a "text" that is a string')


def _table(report: Report) -> str:
    """The figures over all sets, for people."""
    lines = [f"{'category':24} {'harmful':>7} {'AUPRC':>6}  {'95 %':13} {'warned':>7} {'blocked':>7}"]
    for each in report.rankings:
        if each.source == "all":
            low, high = each.interval
            caught = [f"{point.recall:7.1%}" if point else f"{'-':>7}" for point in (each.warn, each.block)]
            lines.append(
                f"{each.category:24} {each.positives:7} {each.auprc:6.3f}  {low:.3f}–{high:.3f}   {' '.join(caught)}"
            )
    lines += ["", f"{'ordinary text':24} {'texts':>7} {'':22} {'warned':>7} {'blocked':>7}"]
    lines += [
        f"{each.source:24} {each.texts:7} {'':22} {each.warned:7.2%} {each.blocked:7.2%}"
        for each in report.ordinary
    ]
    return "\n".join(lines)
