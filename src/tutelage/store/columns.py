"""Column types: text that any database can hold, times in UTC, JSON."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import JSON, DateTime, Dialect, TypeDecorator
from sqlalchemy import Text as PlainText

from tutelage.errors import Sentence

_STORED = '{"template": '
_UNSTORABLE = re.compile("[\x00\ud800-\udfff]")


def clean(value: Any) -> Any:
    """Text without what no database and no UTF-8 stream can carry; lists and dicts are cleaned in depth.

    NUL characters are removed and lone surrogates become U+FFFD: a stray character in a paste or in a
    model's output must not lose the message around it.
    """
    if isinstance(value, Sentence):
        return Sentence.restored(clean(value.stored()))
    if isinstance(value, str):
        return _UNSTORABLE.sub(lambda match: "" if match[0] == "\x00" else "\ufffd", value)
    if isinstance(value, list | tuple):
        return [clean(item) for item in value]
    if isinstance(value, dict):
        return {clean(key): clean(item) for key, item in value.items()}
    return value


class Text(TypeDecorator[str]):
    """Text; see `clean` for what is taken out on the way in, in look-ups too."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        return None if value is None else str(clean(value))


class Words(TypeDecorator[str]):
    """What a page tells: a Sentence comes back as one, in any language; other text as words without values."""

    impl = PlainText
    cache_ok = True

    def process_bind_param(self, value: str | None, dialect: Dialect) -> str | None:
        if isinstance(value, Sentence) and value.values:
            return json.dumps(clean(value).stored(), ensure_ascii=False)
        return None if value is None else str(clean(value))

    def process_result_value(self, value: str | None, dialect: Dialect) -> Sentence | None:
        if value is None:
            return None
        return Sentence.restored(json.loads(value) if value.startswith(_STORED) else value)


class Time(TypeDecorator[datetime]):
    """A moment, stored in UTC, read as a timezone-aware datetime."""

    impl = DateTime
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Json(TypeDecorator[Any]):
    """JSON, cleaned like text. None is SQL's NULL."""

    impl = JSON(none_as_null=True)
    cache_ok = True

    def process_bind_param(self, value: Any, dialect: Dialect) -> Any:
        return clean(value)
