"""Which version an alias means, and which it meant before: `versions/aliases.json`."""

from __future__ import annotations

import json
import re
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from pathlib import Path

from tutelage.errors import Conflict, InvalidRequest, ModelError, Sentence, Unavailable
from tutelage.registry.folders import locked
from tutelage.registry.version import NAME, closed, write_json

LATEST = "latest"
_ALIAS = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_History = dict[str, list[dict[str, str]]]


class Aliases:
    """The history of each alias, oldest first; the last entry is what it means now."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def current(self) -> dict[str, str]:
        """Alias to version name. Raises ModelError when the file is broken."""
        return {alias: entries[-1]["version"] for alias, entries in self._read().items() if entries}

    def history(self, alias: str) -> list[str]:
        """The versions an alias has meant and can go back through, oldest first."""
        return [entry["version"] for entry in self._read().get(alias, [])]

    def point(self, alias: str, version: str) -> None:
        """Let an alias mean a version; nothing changes when it does already. Raises Unavailable on a full disk."""
        check_alias(alias)
        with self._locked():
            histories = self._read()
            entries = histories.setdefault(alias, [])
            if not entries or entries[-1]["version"] != version:
                entries.append({"version": version, "at": datetime.now(UTC).isoformat()})
                self._write(histories)

    def step_back(self, alias: str, version: str) -> None:
        """Let an alias mean a version again that it meant before, and forget what came after.

        Nothing changes when it means that version already. Raises Conflict when it never did.
        """
        with self._locked():
            histories = self._read()
            entries = histories.get(alias, [])
            if version not in (entry["version"] for entry in entries):
                raise Conflict(
                    Sentence("“{alias}” has never meant {version}.", alias=alias, version=version),
                    hint="Look at its history again.",
                )
            while entries[-1]["version"] != version:
                entries.pop()
            self._write(histories)

    def _read(self) -> _History:
        try:
            histories = json.loads(self.file.read_text(encoding="utf-8"))
            if not all(NAME.fullmatch(entry["version"]) for past in histories.values() for entry in past):
                raise ValueError("a version's name is not one")
            return dict(histories)
        except FileNotFoundError:
            return {}
        except PermissionError as error:
            raise closed(self.file, error) from error
        except (OSError, ValueError, TypeError, AttributeError, KeyError) as error:
            hint = "Restore the file from a backup, or delete it and promote a version again."
            message = Sentence("The list of aliases is broken: {error}.", error=error)
            raise ModelError(message, where=str(self.file), hint=hint) from error

    def _write(self, histories: _History) -> None:
        try:
            write_json(self.file, histories)
        except OSError as error:
            raise Unavailable(
                Sentence("The list of aliases cannot be written: {error}.", error=error.strerror),
                hint="Make room on the disk and do it again; nothing has changed.",
            ) from error

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.file.with_name(".lock"))


def check_alias(alias: str) -> None:
    """Raises InvalidRequest for what cannot be an alias."""
    if not _ALIAS.fullmatch(alias) or NAME.fullmatch(alias) or alias == LATEST:
        hint = "An alias is a lower-case word such as `stable`, and not a version's name."
        raise InvalidRequest(Sentence("“{alias}” cannot be an alias.", alias=alias), param="alias", hint=hint)
