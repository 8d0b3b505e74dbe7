"""What a client may ask of `/v1/chat/completions`, checked; whatever is not supported is named, never ignored."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage.dialogue import Message, Role, check_turns
from tutelage.engine.interface import Sampling
from tutelage.errors import InvalidRequest
from tutelage.store.columns import clean

MOST_CHOICES = 8
MOST_STOPS = 4
# Parameters that are not supported, with the values that mean that they are not used.
OFF: dict[str, tuple[Any, ...]] = {
    "audio": (),
    "frequency_penalty": (0,),
    "function_call": ("none", "auto"),
    "functions": ([],),
    "logit_bias": ({},),
    "metadata": ({},),
    "modalities": (["text"],),
    "parallel_tool_calls": (True, False),
    "prediction": (),
    "presence_penalty": (0,),
    "reasoning_effort": ("none",),
    "response_format": ({"type": "text"},),
    "service_tier": ("auto", "default"),
    "store": (False,),
    "tool_choice": ("none", "auto"),
    "tools": ([],),
    "top_logprobs": (0,),
    "verbosity": ("medium",),
    "web_search_options": (),
}
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class TextPart(_Part):
    type: str
    text: str | None = None


class ChatMessage(_Part):
    role: str
    content: str | list[TextPart] | None = None


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool = False
    include_obfuscation: bool = False


class ChatRequest(BaseModel):
    """The body of a request. Extra parameters are kept, so that `check` can name them."""

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)

    model: str = Field(min_length=1, max_length=200)
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    max_tokens: int | None = Field(None, ge=1, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    logprobs: bool | None = None
    user: str | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def check(self) -> None:
        """Raise InvalidRequest, naming the parameter, for anything that would not be honoured."""
        for name, value in (self.model_extra or {}).items():
            if name not in OFF:
                raise _unsupported(name, f"unknown parameter: {name[:100]}", "unknown_parameter")
            if value is not None and value not in OFF[name]:
                raise _unsupported(name, f"{name} is not supported with this value", "unsupported_parameter")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is for streams only", param="stream_options", hint="set stream"
            )

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Raises InvalidRequest for too many or empty ones."""
        stops = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stops) > MOST_STOPS or "" in stops:
            raise InvalidRequest(f"stop takes up to {MOST_STOPS} strings, none of them empty", param="stop")
        return stops

    def sampling(self, choice: int) -> Sampling:
        """How the choice of this index is drawn: each from its own seed."""
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-6),
            max_tokens=self.max_completion_tokens or self.max_tokens,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
        )

    def dialogue(self) -> list[Message]:
        """The messages as the model reads them: one system message, then user and assistant in turn.

        System and developer messages at the beginning become one, as do neighbours of the same role.
        Raises InvalidRequest naming the message for anything else.
        """
        found: list[Message] = []
        for index, message in enumerate(self.messages):
            place = f"messages.{index}"
            role, text = _role(message, place), _text(message, place)
            if found and found[-1].role == role:
                found[-1] = Message(role, f"{found[-1].content}\n\n{text}")
            else:
                found.append(Message(role, text))
        wrong = check_turns(found, last="user")
        if wrong is not None:
            raise InvalidRequest(wrong, param="messages", hint="begin with a user message and end with one")
        return found


def _role(message: ChatMessage, place: str) -> Role:
    if message.role not in ROLES:
        raise InvalidRequest(
            f"the role {message.role[:40]!r} is not supported",
            param=f"{place}.role",
            hint=f"use {', '.join(ROLES)}",
        )
    extra = {name for name, value in (message.model_extra or {}).items() if value}
    unsupported = extra & {"tool_calls", "function_call", "audio", "tool_call_id"}
    if unsupported:
        raise _unsupported(
            f"{place}.{min(unsupported)}", "tools and audio are not supported", "unsupported_parameter"
        )
    return ROLES[message.role]


def _text(message: ChatMessage, place: str) -> str:
    if message.content is None:
        raise InvalidRequest("a message needs its content", param=f"{place}.content")
    parts = [message.content] if isinstance(message.content, str) else []
    for index, part in enumerate([] if parts else message.content):
        assert isinstance(part, TextPart)
        if part.type != "text" or part.text is None:
            raise _unsupported(
                f"{place}.content.{index}",
                "only parts of the type text are supported",
                "unsupported_parameter",
            )
        parts.append(part.text)
    text: str = clean("".join(parts))
    return text


def _unsupported(
    param: str, message: str, code: Literal["unknown_parameter", "unsupported_parameter"]
) -> InvalidRequest:
    return InvalidRequest(message, param=param[:200], code=code, hint="leave it out")
