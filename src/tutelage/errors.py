"""Every error a person can meet, with the way out.

TutelageError
├── ConfigError            a recipe, an option or a setting is wrong
├── DataError              a file or a row cannot be read; carries file and line
├── ModelError             a model, tokenizer or checkpoint cannot be used
├── NotFound               there is no such version, dialogue, message, …
├── Conflict               the thing has changed, exists already, or is in use
├── Denied                 this user may not do this
│   └── Unauthenticated    nobody is signed in, or the key is not valid
├── InvalidRequest         a request that cannot be carried out as it stands
│   └── ContextTooLong     prompt and answer do not fit into the model's context
├── Unavailable            busy, shutting down, or a part is out of reach: try again
│   └── RateLimited        too many requests; carries the seconds to wait
└── TrainingError          a run had to stop
    └── InvariantViolated  a run stopped itself because a number that cannot be wrong was wrong
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Self


class Sentence(str):
    """Words with values filled in that know what they were made of, so that a page can say them in its language.

    Sentence("{count} answers", count=3) == "3 answers"; a value may be a Sentence itself.
    """

    __slots__ = ("template", "values")
    template: str
    values: dict[str, object]

    def __new__(cls, template: str, **values: object) -> Self:
        made = super().__new__(cls, template.format(**values) if values else template)
        made.template, made.values = template, values
        return made

    def told(self, t: Callable[..., str]) -> str:
        """The same in the words of `t(template, **values)`."""
        values = {
            name: each.told(t) if isinstance(each, Sentence) else each for name, each in self.values.items()
        }
        return t(self.template, **values)


class TutelageError(Exception):
    """Base of all errors that are meant to be read by people.

    `message` says what happened, `hint` the way out, `where` the place (a file with its line, a key). What a page may
    show has a translation: its words are literal, or a Sentence where values stand in them.
    """

    def __init__(self, message: str, *, hint: str = "", where: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.where = where

    def __str__(self) -> str:
        text = f"{self.where}: {self.message}" if self.where else self.message
        return f"{text}\nhint: {self.hint}" if self.hint else text


class ConfigError(TutelageError):
    """A recipe, an option or a setting is wrong."""


class DataError(TutelageError):
    """A file or one of its rows cannot be read."""

    def __init__(
        self, message: str, *, path: Path | str | None = None, line: int | None = None, hint: str = ""
    ) -> None:
        where = "" if path is None else str(path) if line is None else f"{path}:{line}"
        super().__init__(message, hint=hint, where=where)
        self.path = path
        self.line = line


class ModelError(TutelageError):
    """A model, tokenizer or checkpoint cannot be used."""


class NotFound(TutelageError):
    """There is no such thing, or it is not yours to see."""


class Conflict(TutelageError):
    """The thing has changed, exists already, or is in use."""


class Denied(TutelageError):
    """This user may not do this."""


class Unauthenticated(Denied):
    """Nobody is signed in, or the key is not valid."""


class InvalidRequest(TutelageError):
    """A request that cannot be carried out as it stands. `param` names the field at fault."""

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.param = param
        self.code = code


class ContextTooLong(InvalidRequest):
    """Prompt and answer do not fit into the model's context."""


class Unavailable(TutelageError):
    """Busy, shutting down, or a part is out of reach: try again later."""


class RateLimited(Unavailable):
    """Too many requests. `retry_after` is in seconds."""

    def __init__(self, message: str, *, retry_after: float, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.retry_after = retry_after


class TrainingError(TutelageError):
    """A run had to stop."""


class InvariantViolated(TrainingError):
    """A run stopped itself because a number that cannot be wrong was wrong."""
