"""`tutelage import …` and `tutelage export …`: training data in, training data out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tutelage.cli.opening import opened_store
from tutelage.cli.output import JsonOption, emit
from tutelage.errors import NotFound

if TYPE_CHECKING:
    from sqlalchemy.orm import Session

    from tutelage.datasets.importing import Report
    from tutelage.datasets.sources import Parser

COUNTS = {
    "demonstrations": "demonstrations",
    "prompts": "prompts",
    "comparisons": "comparisons",
    "pairs": "  pairs",
    "ties": "  ties",
    "messages": "messages",
    "already_there": "already there",
}


class ComparisonFormat(StrEnum):
    """How comparisons can be written; the names of `tutelage.datasets.formats.COMPARISONS`."""

    ranked = "ranked"
    pairs = "pairs"
    kto = "kto"


PathArgument = Annotated[
    Path, typer.Argument(help="A file (.jsonl, .json, .csv, also .gz), or a folder of them.")
]
StrictOption = Annotated[bool, typer.Option("--strict", help="Import nothing if a row cannot be read.")]
SourceOption = Annotated[
    str, typer.Option("--source", help="Name this data by; the default is the format's name.")
]
SourcesOption = Annotated[
    list[str], typer.Option("--source", help="Only what came from here; may be repeated.")
]
NO_NAMES: list[str] = []
TargetArgument = Annotated[Path, typer.Argument(help="The file to write, or - for standard output.")]


def register(app: typer.Typer) -> None:
    """Add the two groups to the command line."""
    imports = typer.Typer(help="Bring dialogues, rankings and prompts in from files.", no_args_is_help=True)
    for name, command in IMPORTERS.items():
        imports.command(name)(command)
    app.add_typer(imports, name="import")
    exports = typer.Typer(help="Write what people made to files.", no_args_is_help=True)
    exports.command("demonstrations")(export_demonstrations)
    exports.command("comparisons")(export_comparisons)
    exports.command("prompts")(export_prompts)
    exports.command("trees")(export_trees)
    app.add_typer(exports, name="export")


def import_messages(
    path: PathArgument, source: SourceOption = "", strict: StrictOption = False, as_json: JsonOption = False
) -> None:
    """Dialogues: OpenAI's "messages", ShareGPT's "conversations", or a "prompt", bare or with its "completion"."""
    _import(path, "messages", source=source, strict=strict, as_json=as_json)


def import_alpaca(
    path: PathArgument, source: SourceOption = "", strict: StrictOption = False, as_json: JsonOption = False
) -> None:
    """Instructions with answers: Alpaca, Dolly, self-instruct seeds."""
    _import(path, "alpaca", source=source, strict=strict, as_json=as_json)


def import_oasst(
    path: PathArgument,
    lang: Annotated[list[str], typer.Option(help="Keep this language only; may be repeated.")] = NO_NAMES,
    synthetic: Annotated[bool, typer.Option("--synthetic", help="Keep messages that a model wrote.")] = False,
    source: SourceOption = "",
    strict: StrictOption = False,
    as_json: JsonOption = False,
) -> None:
    """Open Assistant's message trees: demonstrations, comparisons and prompts."""
    from tutelage.datasets.sources import oasst

    parse = partial(oasst.parse, languages=lang, synthetic=synthetic)
    _import(path, "oasst", parse, source=source, strict=strict, as_json=as_json)


def import_hh(
    path: PathArgument, source: SourceOption = "", strict: StrictOption = False, as_json: JsonOption = False
) -> None:
    """Pairs of transcripts in the form of HH-RLHF."""
    _import(path, "hh", source=source, strict=strict, as_json=as_json)


def import_ranked(
    path: PathArgument, source: SourceOption = "", strict: StrictOption = False, as_json: JsonOption = False
) -> None:
    """Judged answers: our own export, pairs ("chosen", "rejected"), best-first lists, judgements with passages."""
    _import(path, "ranked", source=source, strict=strict, as_json=as_json)


IMPORTERS: dict[str, Callable[..., None]] = {
    "messages": import_messages,
    "alpaca": import_alpaca,
    "oasst": import_oasst,
    "hh": import_hh,
    "ranked": import_ranked,
}


def export_demonstrations(
    path: TargetArgument, source: SourcesOption = NO_NAMES, as_json: JsonOption = False
) -> None:
    """Demonstrations, as OpenAI's "messages"."""
    from tutelage.datasets import formats
    from tutelage.store import export

    with opened_store() as store, store.read() as tx:
        found = export.demonstrations(tx, sources=_known(tx, source, export.demonstrations))
        rows = formats.write((row for item in found for row in formats.messages(item)), path)
    _say_written(rows, "demonstrations", "messages", path, as_json=as_json)


def export_comparisons(
    path: TargetArgument,
    format: Annotated[
        ComparisonFormat, typer.Option(help="ranked keeps everything.")
    ] = ComparisonFormat.ranked,
    source: SourcesOption = NO_NAMES,
    as_json: JsonOption = False,
) -> None:
    """Comparisons: as we keep them, as pairs (TRL, OpenRLHF), or as single judged answers (KTO)."""
    from tutelage.datasets import formats
    from tutelage.store import export

    rows_of = formats.COMPARISONS[format.value]
    with opened_store() as store, store.read() as tx:
        found = export.comparisons(tx, sources=_known(tx, source, export.comparisons))
        rows = formats.write((row for item in found for row in rows_of(item)), path)
    _say_written(rows, "comparisons", format.value, path, as_json=as_json)


def export_prompts(
    path: TargetArgument, source: SourcesOption = NO_NAMES, as_json: JsonOption = False
) -> None:
    """Prompts: every question that may be answered in training, with what was said before it."""
    from tutelage.datasets import formats
    from tutelage.store import export

    with opened_store() as store, store.read() as tx:
        found = export.prompts(tx, sources=_known(tx, source, export.prompts))
        rows = formats.write((row for item in found for row in formats.prompt(item)), path)
    _say_written(rows, "prompts", "prompts", path, as_json=as_json)


def export_trees(path: TargetArgument, source: SourcesOption = NO_NAMES, as_json: JsonOption = False) -> None:
    """Demonstrations, comparisons and prompts together, as Open Assistant's message trees."""
    from tutelage.datasets import formats
    from tutelage.datasets.trees import trees
    from tutelage.store import export

    with opened_store() as store, store.read() as tx:
        chosen = _known(tx, source, export.demonstrations, export.comparisons, export.prompts)
        forest = trees(
            export.demonstrations(tx, sources=chosen),
            export.comparisons(tx, sources=chosen),
            export.prompts(tx, sources=chosen),
        )
    rows = formats.write(forest.rows(), path)
    _say_written(rows, "trees", "oasst", path, left_out=forest.left_out, as_json=as_json)


def _known(tx: Session, names: list[str], *streams: Callable[[Session], Iterator[Any]]) -> list[str] | None:
    """The sources that were asked for, None for all. Raises NotFound where nothing came from one of them."""
    if not names:
        return None
    known = sorted({item.source for stream in streams for item in stream(tx)})
    for name in names:
        if name not in known:
            raise NotFound(f"nothing came from {name!r}", hint=f"sources: {', '.join(known) or 'none yet'}")
    return names


def _say_written(
    rows: int,
    what: str,
    format: str,
    path: Path,
    *,
    left_out: Mapping[str, int] | None = None,
    as_json: bool,
) -> None:
    if str(path) == "-":
        return
    result: dict[str, Any] = {"what": what, "format": format, "path": str(path), "rows": rows}
    lines = [f"Wrote {rows:,} rows of {what} to {escape(str(path))}."]
    if left_out is not None:
        result["left_out"] = dict(left_out)
        lines += [f"Left out: {count:,} {reason}" for reason, count in left_out.items()]
    emit(result, "\n".join(lines), as_json=as_json)


def _import(
    path: Path, format: str, parse: Parser | None = None, *, source: str, strict: bool, as_json: bool
) -> None:
    """Import in a format; `parse` reads it in another way than it is read without options."""
    from tutelage.datasets.importing import load
    from tutelage.datasets.sources import PARSERS, read

    found = read(path, parse or PARSERS[format], source=source, default_source=format)
    with opened_store() as store:
        report = load(store, found, strict=strict)
    result = {"format": format, "path": str(path), **_numbers(report)}
    emit(result, escape(_text(report)), as_json=as_json)


def _numbers(report: Report) -> dict[str, Any]:
    numbers = {name: getattr(report, name) for name in COUNTS}
    problems = [{"file": str(p.path), "line": p.line, "reason": p.reason} for p in report.problems]
    return {**numbers, "skipped": dict(report.skipped), "bad": len(problems), "problems": problems}


def _text(report: Report) -> str:
    """The counts, one a line, then what was left out and why, then why rows could not be read."""
    from tutelage.datasets.importing import told

    lines = [f"{label:<16}{getattr(report, name):>9,}" for name, label in COUNTS.items()]
    lines.append(f"{'left out':<16}{report.skipped.total():>9,}")
    lines += [f"{count:>9,}  {reason}" for reason, count in report.skipped.most_common()]
    lines.append(f"{'bad rows':<16}{len(report.problems):>9,}")
    lines += [f"  {line}" for line in told(report.problems)]
    return "\n".join(lines)
