"""`tutelage versions …`, `tutelage keys …`, `tutelage backup`, `restore`: what serves, who may call, what is kept."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from tutelage.cli.opening import opened_store
from tutelage.cli.output import JsonOption, emit

if TYPE_CHECKING:
    from tutelage.registry import ModelVersion, Registry
    from tutelage.store.tables import ApiKey


class ExportFormat(StrEnum):
    """How a version can be written; the keys of `tutelage.models.exporting.KINDS`."""

    peft = "peft"
    safetensors = "safetensors"
    gguf = "gguf"


NO_SCOPES: list[str] = []
NameOrAliasArgument = Annotated[str, typer.Argument(help="A version or an alias, such as v3 or stable.")]
AliasOption = Annotated[str, typer.Option("--alias", help="The alias to move.")]


def register(app: typer.Typer) -> None:
    """Add the commands to the command line."""
    versions = typer.Typer(help="Published models, and which of them serves.", no_args_is_help=True)
    versions.command("list")(list_versions)
    versions.command("show")(show)
    versions.command("card")(card)
    versions.command("export")(export)
    versions.command("publish")(publish)
    versions.command("promote")(promote)
    versions.command("rollback")(rollback)
    app.add_typer(versions, name="versions")
    keys = typer.Typer(help="Keys for programs that call /v1.", no_args_is_help=True)
    keys.command("create")(create_key)
    keys.command("list")(list_keys)
    keys.command("revoke")(revoke_key)
    app.add_typer(keys, name="keys")
    app.command("backup")(backup)
    app.command("restore")(restore)


def list_versions(as_json: JsonOption = False) -> None:
    """All versions, with the aliases that mean them."""
    registry = _registry()
    aliases = registry.aliases()
    found = registry.list()
    rows = [_line(version, aliases) for version in found]
    text = "\n".join(rows) or "No version yet. `tutelage serve` makes the base model the first."
    emit({"versions": [version.as_dict() for version in found], "aliases": aliases}, text, as_json=as_json)


def show(
    name: NameOrAliasArgument,
    as_json: JsonOption = False,
) -> None:
    """One version: what it was made of, and how it did."""
    from tutelage.cli.version_reports import version_report

    registry = _registry()
    version = registry.resolve(name)
    lineage = [ancestor.name for ancestor in registry.lineage(version.name)]
    aliases = sorted(alias for alias, meant in registry.aliases().items() if meant == version.name)
    result = version.as_dict() | {"lineage": lineage, "aliases": aliases}
    emit(result, version_report(result), as_json=as_json)


def card(name: NameOrAliasArgument, as_json: JsonOption = False) -> None:
    """A version's card, in Markdown: base and licence, parents, data, recipe, evaluation, limits."""
    from tutelage.config import home
    from tutelage.models.exporting import card_facts
    from tutelage.registry.card import card as card_text

    version = _registry().resolve(name)
    text = card_text(card_facts(version, home()))
    emit({"version": version.name, "card": text}, escape(text.rstrip("\n")), as_json=as_json)


def export(
    name: NameOrAliasArgument,
    folder: Annotated[Path, typer.Argument(help="A folder that does not exist yet.")],
    format: Annotated[
        ExportFormat,
        typer.Option(help="peft: the adapter; safetensors: a whole model folder; gguf: for llama.cpp."),
    ] = ExportFormat.safetensors,
    type: Annotated[
        str, typer.Option(help="Of the numbers: bf16, f16 or f32; for gguf also q8_0.", show_default=False)
    ] = "",
    as_json: JsonOption = False,
) -> None:
    """Write a version to files that other programs run, with its card."""
    from tutelage.config import home
    from tutelage.models.exporting import ExportRequest, export_version

    version = _registry().resolve(name)
    written = export_version(ExportRequest(version, format.value, type or None), folder, home())
    sizes = {str(path): path.stat().st_size for path in written}
    lines = [f"Wrote {version.name} to {folder}:"]
    lines += [f"{size:>13,}  {Path(path).relative_to(folder)}" for path, size in sizes.items()]
    result = {"version": version.name, "format": format.value, "folder": str(folder), "files": sizes}
    emit(result, escape("\n".join(lines)), as_json=as_json)


def publish(
    run: Annotated[Path, typer.Argument(help="A finished run: its name (sft-0001), or its folder.")],
    notes: Annotated[str, typer.Option(help="What people should know about this version.")] = "",
    as_json: JsonOption = False,
) -> None:
    """Make a version of what a training run produced. It serves once it is promoted."""
    from tutelage.registry import publish_run

    version = publish_run(_registry(), _run_folder(run), notes=notes)
    text = f"Published [bold]{version.name}[/bold]. Let it serve: tutelage versions promote {version.name}"
    emit(version.as_dict(), text, as_json=as_json)


def _run_folder(run: Path) -> Path:
    """The run of that name here (`sft-0001`, `runs/sft-0001`), or the folder that is named."""
    from tutelage.config import home

    known = home() / "runs" / run.name
    return known if str(run.parent) in (".", "runs") and known.is_dir() else run


def promote(
    name: NameOrAliasArgument,
    alias: AliasOption = "stable",
    anyway: Annotated[bool, typer.Option("--anyway", help="Even if the gate did not let it pass.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Let an alias mean this version from now on; a running server follows by itself.

    What is to answer people is loaded and asked a question first.
    """
    from tutelage.cli.trial import ask, check_gate

    registry = _registry()
    version = registry.resolve(name)
    if alias == "stable":
        check_gate(version, anyway=anyway)
        ask(registry, version)
    version = registry.promote(version.name, alias)
    _say_moved(version, alias, as_json=as_json)


def rollback(alias: AliasOption = "stable", as_json: JsonOption = False) -> None:
    """Let an alias mean the version before the present one; those that are gone since are passed over."""
    from tutelage.cli.trial import ask

    registry = _registry()
    if alias == "stable":
        ask(registry, registry.previous(alias))
    version = registry.rollback(alias)
    _say_moved(version, alias, as_json=as_json)


def create_key(
    name: Annotated[str, typer.Option(help="What the key is for.")],
    scope: Annotated[
        list[str], typer.Option(help="chat, moderations or rewards; may be repeated; all when left out.")
    ] = NO_SCOPES,
    as_json: JsonOption = False,
) -> None:
    """Make a key. It is shown once."""
    from tutelage.store import accounts

    with opened_store() as store, store.write() as tx:
        key, secret = accounts.create_key(tx, name=name, scopes=scope or accounts.SCOPES)
    emit({"key": secret, **_key(key)}, f"{secret}\nKeep it: it is not shown again.", as_json=as_json)


def list_keys(as_json: JsonOption = False) -> None:
    """All keys, the revoked ones too."""
    from tutelage.store import accounts

    with opened_store() as store, store.read() as tx:
        found = accounts.list_keys(tx)
    text = (
        "\n".join(_key_line(key) for key in found) or "No key yet. Make one: tutelage keys create --name NAME"
    )
    emit({"keys": [_key(key) for key in found]}, text, as_json=as_json)


def revoke_key(
    key: Annotated[str, typer.Argument(help="The key's id, or its first letters as the list shows them.")],
    as_json: JsonOption = False,
) -> None:
    """End a key for good."""
    from tutelage.store import accounts

    with opened_store() as store, store.write() as tx:
        revoked = accounts.revoke_key(tx, _key_id(accounts.list_keys(tx), key))
    emit(_key(revoked), f"Revoked {escape(revoked.name)} ({revoked.prefix}…).", as_json=as_json)


def backup(
    path: Annotated[Path, typer.Argument(help="A file that does not exist yet.")], as_json: JsonOption = False
) -> None:
    """Copy the database while people go on using it."""
    with opened_store() as store:
        store.backup(path)
    result = {"path": str(path), "bytes": path.stat().st_size}
    emit(result, f"Wrote {escape(str(path))} ({result['bytes']} bytes).", as_json=as_json)


def restore(
    path: Annotated[Path, typer.Argument(help="A file that `tutelage backup` wrote.")],
    as_json: JsonOption = False,
) -> None:
    """Put a backup in the place of the database. What people have deleted since stays deleted."""
    from tutelage.config import database, home
    from tutelage.store import restoring

    place = database()
    if isinstance(place, Path):
        kept = restoring.restore(path, place)
    else:
        with opened_store() as store:
            kept = restoring.restore_on_server(path, store, home())
    text = f"Restored {path}." + (f" What was there before is in {kept}." if kept else "")
    emit({"path": str(path), "kept": None if kept is None else str(kept)}, escape(text), as_json=as_json)


def _registry() -> Registry:
    from tutelage.config import home
    from tutelage.registry import Registry

    return Registry(home())


def _line(version: ModelVersion, aliases: dict[str, str]) -> str:
    meant = " ".join(alias for alias, name in sorted(aliases.items()) if name == version.name)
    parents = f"from {', '.join(version.parents)}" if version.parents else f"on {version.model}"
    text = f"{version.name:<6} {version.kind:<7} {version.created:%Y-%m-%d %H:%M}  {parents}"
    return escape(text) + (f"  [green]{escape(meant)}[/green]" if meant else "")


def _say_moved(version: ModelVersion, alias: str, *, as_json: bool) -> None:
    text = f"{escape(alias)} is now [bold]{version.name}[/bold]."
    emit({"alias": alias, "version": version.name}, text, as_json=as_json)


def _key(key: ApiKey) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "prefix": key.prefix,
        "scopes": key.scopes,
        "created": key.created.isoformat(),
        "revoked": None if key.revoked is None else key.revoked.isoformat(),
    }


def _key_line(key: ApiKey) -> str:
    state = "" if key.revoked is None else f"  revoked {key.revoked:%Y-%m-%d}"
    return escape(f"{key.prefix}…  {key.created:%Y-%m-%d}  {key.name} ({', '.join(key.scopes)}){state}")


def _key_id(keys: Sequence[ApiKey], wanted: str) -> str:
    """A key's id from its id or its shown prefix, when that names one key; else what was asked for."""
    found = [key.id for key in keys if wanted in (key.id, key.prefix)]
    return found[0] if len(found) == 1 else wanted
