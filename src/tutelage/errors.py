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
from typing import Any, Self


class Sentence(str):
    """Words with values filled in that know what they were made of, so that a page can say them in its language.

    Sentence("{count} answers", count=3) == "3 answers"; a value is a number, text, or a Sentence itself. What is told
    later, out of a row or a file, is kept there as `stored()`.
    """

    __slots__ = ("template", "values")
    template: str
    values: dict[str, object]

    def __new__(cls, template: str, **values: object) -> Self:
        kept: dict[str, object] = {
            name: each if isinstance(each, str | int | float) else str(each) for name, each in values.items()
        }
        made = super().__new__(cls, template.format(**kept) if kept else template)
        made.template, made.values = template, kept
        return made

    @classmethod
    def of(cls, words: str) -> Sentence:
        """A Sentence as it is, other words as one without values."""
        return words if isinstance(words, Sentence) else cls(words)

    def told(self, t: Callable[..., str]) -> str:
        """The same in the words of `t(template, **values)`."""
        values = {
            name: each.told(t) if isinstance(each, Sentence) else each for name, each in self.values.items()
        }
        return t(self.template, **values)

    def stored(self) -> dict[str, Any]:
        """Template and values as plain JSON: {"template": "{count} answers", "values": {"count": 3}}."""
        if not self.values:
            return {"template": self.template}
        values = {
            name: each.stored() if isinstance(each, Sentence) else each for name, each in self.values.items()
        }
        return {"template": self.template, "values": values}

    @classmethod
    def restored(cls, stored: object) -> Self:
        """What `stored` gave. Anything else is taken as words without values."""
        if not isinstance(stored, dict) or not isinstance(stored.get("template"), str):
            return cls(str(stored))
        values = {
            name: cls.restored(each) if isinstance(each, dict) else each
            for name, each in stored.get("values", {}).items()
        }
        return cls(stored["template"], **values)


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

    @property
    def sentence(self) -> Sentence:
        """Place, message and hint in one, to be told to somebody later."""
        said = Sentence.of(self.message)
        if self.where:
            said = Sentence("{where}: {message}", where=self.where, message=said)
        return (
            Sentence("{message}\nhint: {hint}", message=said, hint=Sentence.of(self.hint))
            if self.hint
            else said
        )

    def __str__(self) -> str:
        return str(self.sentence)


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
