"""The versions of one installation: publish, look up, promote, roll back."""

from __future__ import annotations

import builtins
import os
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tutelage import __version__
from tutelage.errors import Conflict, InvalidRequest, ModelError, NotFound, Sentence
from tutelage.registry.aliases import LATEST, Aliases
from tutelage.registry.folders import locked, sync
from tutelage.registry.version import (
    ADAPTER,
    KIND_NAMES,
    KINDS,
    MANIFEST,
    NAME,
    PREFIXES,
    WEIGHTS,
    ModelVersion,
    VersionKind,
    check_adapter,
    check_weights,
    kind_of,
    read_version,
    write_json,
)

STABLE = "stable"


class Registry:
    """The folder `home/versions`. Several processes may publish and promote at once.

    A published version never changes. Names are checked before they meet the file system.
    """

    def __init__(self, home: Path) -> None:
        self.folder = Path(home) / "versions"
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._aliases = Aliases(self.folder / "aliases.json")

    @property
    def aliases_file(self) -> Path:
        """Replaced at every promotion and roll-back; missing before the first."""
        return self._aliases.file

    def publish(
        self,
        *,
        kind: VersionKind,
        model: str,
        files: Path | None = None,
        weights: Path | None = None,
        parents: Sequence[str] = (),
        snapshot: str | None = None,
        run: str | None = None,
        config: dict[str, Any] | None = None,
        evaluation: dict[str, Any] | None = None,
        notes: str = "",
    ) -> ModelVersion:
        """Add a version under the next free name. `files` is its adapter's folder, or `weights` that of the
        whole model; what is given is copied.

        Raises NotFound for unknown parents, ModelError when a folder is not whole, InvalidRequest for an
        unknown kind. Either the whole version is there afterwards, or nothing.
        """
        if kind not in KINDS:
            raise InvalidRequest(
                Sentence("There is no kind “{kind}”.", kind=kind),
                param="kind",
                hint=Sentence("Use {kinds}.", kinds=" or ".join(KINDS)),
            )
        for parent in parents:
            self.get(parent)
        if files is not None:
            check_adapter(files)
        if weights is not None:
            check_weights(weights)
        manifest = {
            "kind": kind,
            "model": model,
            "adapter": files is not None,
            "weights": weights is not None,
            "parents": list(parents),
            "created": datetime.now(UTC).isoformat(),
            "snapshot": snapshot,
            "run": run,
            "config": config or {},
            "code": _code(),
            "evaluation": evaluation or {},
            "notes": notes,
        }
        folders = {ADAPTER: files, WEIGHTS: weights}
        return self._place(kind, manifest, {name: each for name, each in folders.items() if each is not None})

    def begin(self, model: str | None = None) -> bool:
        """Where nothing is `stable` yet, make a base the first version and let it serve: `model`, or the built-in one.

        Another `model` takes its place as long as nothing was trained. Of several servers that begin at once, one does.
        Returns whether what serves stands on `model`.
        """
        if model is None and STABLE in self.aliases():
            return True
        base = _whole_name(model or "builtin")
        with locked(self.folder / ".begin.lock"):
            stable = self.aliases().get(STABLE)
            found = [version for version in self.survey()[0] if version.kind == "chat"]
            if any(version.name == stable and version.model == base for version in found):
                return True
            untrained = [version for version in found if version.adapter is None and version.weights is None]
            if stable is not None and len(untrained) < len(found):
                return False
            known = next((version for version in untrained if version.model == base), None)
            notes = "The base model, before any training."
            self.promote((known or self.publish(kind="chat", model=base, notes=notes)).name)
        return True

    def list(self, kind: VersionKind | None = None) -> list[ModelVersion]:
        """All versions, or those of one kind, oldest first. Raises ModelError for a broken manifest."""
        return [read_version(self.folder / name) for name in self._names(kind)]

    def survey(self) -> tuple[builtins.list[ModelVersion], dict[str, ModelError]]:
        """All versions that can be read, oldest first, and why each of the others cannot, by its name."""
        found, broken = list[ModelVersion](), dict[str, ModelError]()
        for name in self._names(None):
            try:
                found.append(read_version(self.folder / name))
            except ModelError as error:
                broken[name] = error
        return sorted(found, key=lambda version: version.created), broken

    def get(self, name: str) -> ModelVersion:
        """The version of this name. Raises NotFound."""
        if not NAME.fullmatch(name) or not (self.folder / name).is_dir():
            raise self._unknown(name)
        return read_version(self.folder / name)

    def resolve(self, name: str, kind: VersionKind = "chat") -> ModelVersion:
        """The version of a name or an alias; `latest` is the newest of its kind. Raises NotFound."""
        if name == LATEST:
            names = self._names(kind)
            if not names:
                message = Sentence("There is no {kind} model yet.", kind=KIND_NAMES[kind])
                raise NotFound(message, hint="A round makes one: `tutelage improve RECIPE`.")
            return self.get(names[-1])
        return self.get(self._aliases.current().get(name, name))

    def aliases(self) -> dict[str, str]:
        """Alias to version name."""
        return self._aliases.current()

    def history(self, alias: str = STABLE) -> builtins.list[str]:
        """The names an alias has had, oldest first; the last is the present one."""
        return self._aliases.history(alias)

    def promote(self, name: str, alias: str = STABLE) -> ModelVersion:
        """Let an alias mean a version from now on.

        Raises NotFound, ModelError when the version's files are not whole, InvalidRequest when the alias is
        not a word or means versions of the other kind (`stable` and `candidate` are chat models).
        """
        version = self.get(name)
        wanted = self._kind_behind(alias)
        if wanted is not None and wanted != version.kind:
            message = Sentence(
                "“{alias}” means a {wanted} model, and {name} is a {kind} model.",
                alias=alias,
                wanted=KIND_NAMES[wanted],
                name=name,
                kind=KIND_NAMES[version.kind],
            )
            raise InvalidRequest(message, param="alias", hint="Choose another alias.")
        self.check(version)
        self._aliases.point(alias, version.name)
        return version

    def previous(self, alias: str = STABLE) -> ModelVersion:
        """The version that a roll-back goes to: of those before the present one, the newest that is still whole.

        Raises Conflict when there is none.
        """
        *before, present = self.history(alias) or [""]
        for name in reversed(before):
            if name != present and (version := self._if_whole(name)) is not None:
                return version
        hint = Sentence("Promote a version: `tutelage versions promote NAME --alias {alias}`.", alias=alias)
        raise Conflict(Sentence("There is nothing before the present “{alias}”.", alias=alias), hint=hint)

    def rollback(self, alias: str = STABLE, *, to: str | None = None) -> ModelVersion:
        """Let an alias mean its previous version, or `to` of those before. Raises Conflict when there is none."""
        version = self.previous(alias) if to is None else self.get(to)
        self._aliases.step_back(alias, version.name)
        return version

    def check(self, version: ModelVersion) -> None:
        """Raises ModelError when a version's files, or those of its base, are not whole."""
        if version.adapter is not None:
            check_adapter(version.adapter)
        if version.weights is not None:
            check_weights(version.weights)
        base, hint = Path(version.model), "Put the model back, or promote another version."
        if NAME.fullmatch(version.model):
            base = self.folder / version.model / WEIGHTS
        if version.weights is None and base.is_absolute() and not base.exists():
            raise ModelError(
                Sentence("The base model of {version} is missing.", version=version.name),
                where=version.model,
                hint=hint,
            )

    def lineage(self, name: str) -> builtins.list[ModelVersion]:
        """The version, its parents, their parents and so on, each once; deleted ones are left out."""
        found = {name: self.get(name)}
        waiting = [*found[name].parents]
        while waiting:
            parent = waiting.pop(0)
            if parent not in found and (self.folder / parent).is_dir():
                found[parent] = self.get(parent)
                waiting.extend(found[parent].parents)
        return [*found.values()]

    def _names(self, kind: VersionKind | None) -> builtins.list[str]:
        names = [entry.name for entry in self.folder.iterdir() if NAME.fullmatch(entry.name)]
        wanted = [name for name in names if kind is None or kind_of(name) == kind]
        return sorted(wanted, key=lambda name: (kind_of(name), int(name[1:])))

    def _place(
        self, kind: VersionKind, manifest: dict[str, Any], folders: Mapping[str, Path]
    ) -> ModelVersion:
        draft = Path(tempfile.mkdtemp(prefix=".publishing-", dir=self.folder))
        try:
            write_json(draft / MANIFEST, manifest)
            for name, folder in folders.items():
                shutil.copytree(folder, draft / name)
            for each in (*draft.rglob("*"), draft):
                sync(each)
            version = read_version(self._rename(draft, kind))
            sync(self.folder)
            return version
        except OSError as error:
            # Of a whole folder, shutil tells (from, to, why) for each file.
            reason = error.args[0][0][2] if isinstance(error, shutil.Error) else error.strerror
            raise ModelError(
                Sentence("The version cannot be written: {error}.", error=reason),
                where=str(self.folder),
                hint="make room there and do it again; nothing was left half-written",
            ) from error
        finally:
            shutil.rmtree(draft, ignore_errors=True)

    def _rename(self, draft: Path, kind: VersionKind) -> Path:
        names = self._names(kind)
        number = int(names[-1][1:]) if names else 0
        while True:
            number += 1
            target = self.folder / f"{PREFIXES[kind]}{number}"
            try:
                os.rename(draft, target)  # fails when somebody else was faster: a version is never empty
            except OSError:
                if not target.exists():
                    raise
            else:
                return target

    def _if_whole(self, name: str) -> ModelVersion | None:
        try:
            version = self.get(name)
            self.check(version)
        except (NotFound, ModelError):
            return None
        return version

    def _kind_behind(self, alias: str) -> VersionKind | None:
        if alias in (STABLE, "candidate"):
            return "chat"
        current = self._aliases.current().get(alias)
        return None if current is None else kind_of(current)

    def _unknown(self, name: str) -> NotFound:
        known = [*self._names(None), *sorted(self._aliases.current())]
        hint = (
            Sentence("There are {versions}.", versions=", ".join(known))
            if known
            else "`tutelage serve` makes the base model the first, `tutelage versions publish RUN` a run."
        )
        return NotFound(Sentence("There is no version “{name}”.", name=name), hint=hint)


def _whole_name(model: str) -> str:
    """A folder or file by its whole path, so that it is found from everywhere; other names as they are."""
    ours = model in ("builtin", "tiny") or NAME.fullmatch(model)
    return model if ours or not Path(model).exists() else str(Path(model).resolve())


def _code() -> str:
    """The package's version, with the commit when it runs from a git checkout."""
    checkout = Path(__file__).parents[3]
    if not (checkout / ".git").exists():
        return __version__
    command = ["git", "-C", str(checkout), "rev-parse", "--short=12", "HEAD"]
    try:
        commit = subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return __version__
    return f"{__version__}+{commit}"
