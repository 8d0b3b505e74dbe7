"""Every error becomes the same JSON: `{"error": {"message", "type", "param", "code"}}`, in one table.

    InvalidRequest 400 · Unauthenticated 401 · Denied 403 · NotFound 404 · Conflict 409 · RateLimited 429 ·
    Unavailable, DataError 503 · everything else 500, logged without content

A DataError is about a file of ours, the database most of all, never about what was sent: the log names the file.

`message` is what happened and the hint. People read it in the language of the page they are on (`app.state.translator`
says how), programs for OpenAI's API in English. Pages may show errors of navigations their own way: set
`app.state.error_page`.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response

from tutelage import errors
from tutelage.errors import Sentence
from tutelage.server.validation import first_problem

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Failure:
    """An error as the client sees it: what happened, in `said`, and the way out."""

    status: int
    said: str
    type: str = "invalid_request_error"
    code: str | None = None
    param: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    hint: str = ""

    @property
    def message(self) -> str:
        """What happened and the way out, as one text."""
        if not self.hint:
            return self.said
        end = "" if self.said.endswith("。") else ". "
        return f"{self.said.rstrip('.')}{end}{_sentence(self.hint)}"

    def told(self, t: Translate) -> Failure:
        """The same for a reader of `t`'s language, in whole sentences."""
        said, hint = (_sentence(translated(text, t)) for text in (self.said, self.hint))
        return replace(self, said=said, hint=hint)

    def body(self) -> dict[str, Any]:
        """The JSON that every endpoint answers with. Never holds a lone surrogate, which has no UTF-8."""
        return {
            "error": {
                "message": _encodable(self.message),
                "type": self.type,
                "param": None if self.param is None else _encodable(self.param),
                "code": self.code,
            }
        }

    def response(self) -> JSONResponse:
        return JSONResponse(self.body(), status_code=self.status, headers=dict(self.headers))


class InvalidKey(errors.Unauthenticated):
    """A program came without a key, or with one that is not valid."""


class UnknownModel(errors.NotFound):
    """A program asked for a model version that is not there."""

    param = "model"


Translate = Callable[..., str]
Translator = Callable[[HTTPConnection], Translate]
ErrorPage = Callable[[Request, Failure], Response]

# The first row whose class fits: subclasses stand before their bases.
TABLE: tuple[tuple[type[errors.TutelageError], int, str, str | None], ...] = (
    (errors.ContextTooLong, 400, "invalid_request_error", "context_length_exceeded"),
    (errors.InvalidRequest, 400, "invalid_request_error", "invalid_value"),
    (InvalidKey, 401, "invalid_request_error", "invalid_api_key"),
    (errors.Unauthenticated, 401, "invalid_request_error", "unauthenticated"),
    (errors.Denied, 403, "invalid_request_error", "permission_denied"),
    (UnknownModel, 404, "invalid_request_error", "model_not_found"),
    (errors.NotFound, 404, "invalid_request_error", "not_found"),
    (errors.Conflict, 409, "invalid_request_error", "conflict"),
    (errors.RateLimited, 429, "rate_limit_error", "rate_limit_exceeded"),
    (errors.Unavailable, 503, "server_error", "unavailable"),
    (errors.DataError, 503, "server_error", "unavailable"),
    (errors.TutelageError, 500, "server_error", "internal_error"),
)
CODES = {401: "unauthenticated", 404: "not_found", 405: "method_not_allowed", 413: "request_too_large"}
UNKNOWN_ADDRESS = Sentence("there is nothing at this address")
INTERNAL = Failure(
    500, "something went wrong on the server; its log has more", "server_error", "internal_error"
)


def failure_of(error: Exception) -> Failure:
    """How an error is told to the client. Anything that is not meant for people becomes a plain 500."""
    if isinstance(error, errors.TutelageError):
        return _of_ours(error)
    if isinstance(error, RequestValidationError):
        return _of_validation(error.errors(), error.body)
    if isinstance(error, HTTPException):
        kind = "invalid_request_error" if error.status_code < 500 else "server_error"
        code = CODES.get(error.status_code)
        said = UNKNOWN_ADDRESS if error.status_code == 404 else str(error.detail)
        return Failure(error.status_code, said, kind, code, headers=error.headers or {})
    return INTERNAL


def respond(request: Request, error: Exception) -> Response:
    """The answer to a request that failed."""
    failure = failure_of(error)
    if isinstance(error, HTTPException) and request.url.path.startswith("/v1"):
        failure = _of_routing(failure, f"{request.method} {request.url.path[:200]}")
    if failure.status == 500 or isinstance(error, errors.DataError):
        log_failure(error, request_id=getattr(request.state, "request_id", "-"))
    return answer(request, failure)


def answer(request: Request, failure: Failure) -> Response:
    """A failure for whoever asks: JSON, or the app's own page when a browser navigates."""
    failure = told_to(request, failure)
    page: ErrorPage | None = getattr(request.app.state, "error_page", None)
    return page(request, failure) if page and _navigates(request) else failure.response()


def told_to(asker: HTTPConnection, failure: Failure) -> Failure:
    """A failure in the words of whoever asks: in the language of a page, or as it is for programs."""
    translator: Translator | None = getattr(asker.app.state, "translator", None)
    if translator is None or asker.url.path.startswith("/v1"):
        return failure
    return failure.told(translator(asker))


def translated(text: str, t: Translate) -> str:
    """One sentence of an error in another language."""
    return text.told(t) if isinstance(text, Sentence) else t(text)


def install(app: FastAPI) -> None:
    """Answer every kind of error in the one shape."""

    async def handle(request: Request, error: Exception) -> Response:
        return respond(request, error)

    for kind in (errors.TutelageError, RequestValidationError, HTTPException):
        app.add_exception_handler(kind, handle)


def log_failure(error: BaseException, *, request_id: str) -> None:
    """Log where an error came from, without its message: that may hold what somebody wrote, but for a DataError's."""
    frames, trace = [], error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        frames.append(f"{code.co_filename}:{trace.tb_lineno} {code.co_name}")
        trace = trace.tb_next
    name = f"DataError: {error}" if isinstance(error, errors.DataError) else type(error).__name__
    log.error("%s %s\n  %s", request_id, name, "\n  ".join(frames))


def _of_ours(error: errors.TutelageError) -> Failure:
    status, kind, code = next(row[1:] for row in TABLE if isinstance(error, row[0]))
    param, own_code = getattr(error, "param", None), getattr(error, "code", None)
    kind = getattr(error, "type", kind)
    headers = _headers(error, status)
    return Failure(status, error.message, kind, own_code or code, param, headers, error.hint)


def _of_routing(failure: Failure, asked: str) -> Failure:
    """What is not there, in the words that programs for OpenAI's API know."""
    if failure.status == 404:
        return replace(failure, said=f"Invalid URL ({asked})", code="unknown_url")
    if failure.status == 405:
        return replace(failure, said=f"Not allowed: {asked}", code="method_not_supported")
    return failure


def _headers(error: errors.TutelageError, status: int) -> dict[str, str]:
    if status in (429, 503):
        return {"retry-after": str(max(1, math.ceil(getattr(error, "retry_after", 5))))}
    return {"www-authenticate": "Bearer"} if isinstance(error, InvalidKey) else {}


def _of_validation(problems: Sequence[Mapping[str, Any]], body: object) -> Failure:
    """The first thing wrong with a body or a query. What was sent is never repeated."""
    if problems[0]["loc"] == ("body",):
        hint = "send one, as application/json"
        return Failure(400, "the body is not a JSON object", code="invalid_json", hint=hint)
    if problems[0]["type"] == "json_invalid":
        return Failure(400, "the body is not valid JSON", code="invalid_json")
    problem = first_problem(problems, body)
    return Failure(400, problem.said, code=problem.code, param=problem.param)


def _sentence(hint: str) -> str:
    return hint[:1].upper() + hint[1:]


def _encodable(text: str) -> str:
    return text.encode("utf-8", "replace").decode("utf-8")


def _navigates(request: Request) -> bool:
    if request.url.path.startswith(("/v1/", "/api/")):
        return False
    mode = request.headers.get("sec-fetch-mode")
    return mode == "navigate" if mode else "text/html" in request.headers.get("accept", "")
