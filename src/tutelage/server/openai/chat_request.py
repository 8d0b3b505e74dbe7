"""What a client may ask of `/v1/chat/completions`, checked; whatever is not supported is named, never ignored."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage.dialogue import Message, Role
from tutelage.errors import InvalidRequest
from tutelage.moderation.policy import Side
from tutelage.server.openai.parameters import TextRequest, unsupported
from tutelage.store.columns import clean

MOST_ALTERNATIVES = 20
ROLES: dict[str, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
TOOLS = ("tool_calls", "function_call", "audio", "tool_call_id")
WITHOUT_EFFECT = ("name", "annotations")


class _Part(BaseModel):
    model_config = ConfigDict(extra="allow", strict=True)


class ContentPart(_Part):
    type: str
    text: str | None = None
    refusal: str | None = None


class ChatMessage(_Part):
    role: str
    content: str | list[ContentPart] | None = None
    refusal: str | None = None


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class ModerationMode(_Exact):
    mode: Literal["score", "block"]


class ModerationPolicy(_Exact):
    input: ModerationMode | None = None
    output: ModerationMode | None = None


class Moderation(_Exact):
    """Asks for the filter's scores; a side with the mode `block` blocks whatever the filter would warn of."""

    model: str = Field(min_length=1, max_length=200)
    policy: ModerationPolicy | None = None

    @property
    def strict_sides(self) -> tuple[Side, ...]:
        policy = self.policy or ModerationPolicy()
        sides: tuple[tuple[Side, ModerationMode | None], ...] = (
            ("input", policy.input),
            ("output", policy.output),
        )
        return tuple(side for side, mode in sides if mode is not None and mode.mode == "block")


class ChatRequest(TextRequest):
    """The body of a request."""

    OFF: ClassVar[dict[str, tuple[Any, ...]]] = {
        "audio": (),
        "function_call": ("none", "auto"),
        "functions": ([],),
        "metadata": ({},),
        "modalities": (["text"],),
        "parallel_tool_calls": (True, False),
        "prediction": (),
        "reasoning_effort": ("none",),
        "response_format": ({"type": "text"},),
        "service_tier": ("auto", "default"),
        "store": (False,),
        "tool_choice": ("none", "auto"),
        "tools": ([],),
        "verbosity": ("medium",),
        "web_search_options": (),
    }

    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_tokens: int | None = Field(None, ge=1, le=2**31)
    max_completion_tokens: int | None = Field(None, ge=1, le=2**31)
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_ALTERNATIVES)
    moderation: Moderation | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: Literal["in_memory", "in-memory", "24h"] | None = None
    prompt_cache_options: dict[str, Any] | None = None

    def check(self) -> None:
        super().check()
        if self.top_logprobs and not self.logprobs:
            raise InvalidRequest("top_logprobs needs logprobs", param="top_logprobs", hint="set logprobs")
        if self.max_tokens is not None and self.max_completion_tokens is not None:
            raise InvalidRequest(
                "max_tokens and max_completion_tokens are two names of one thing",
                param="max_tokens",
                hint="send max_completion_tokens alone",
            )

    @property
    def longest(self) -> int | None:
        return self.max_completion_tokens or self.max_tokens

    @property
    def alternatives(self) -> int:
        return self.top_logprobs or 0

    def dialogue(self) -> list[Message]:
        """The messages as the model reads them. Neighbours of the same role become one message.

        Raises InvalidRequest naming the message for what is not text of a known role.
        """
        return dialogue_of(self.messages, "messages")


def dialogue_of(messages: Sequence[ChatMessage], place: str) -> list[Message]:
    """Messages as the model reads them; neighbours of the same role become one. `place` names the list in errors.

    Raises InvalidRequest.
    """
    found: list[Message] = []
    for index, message in enumerate(messages):
        at = f"{place}[{index}]"
        role, text = _role(message, at), _text(message, at)
        if found and found[-1].role == role:
            found[-1] = Message(role, f"{found[-1].content}\n\n{text}")
        else:
            found.append(Message(role, text))
    return found


def _role(message: ChatMessage, place: str) -> Role:
    if message.role not in ROLES:
        raise InvalidRequest(
            f"the role {message.role[:40]!r} is not supported",
            param=f"{place}.role",
            hint=f"use {', '.join(ROLES)}",
        )
    for name, value in (message.model_extra or {}).items():
        if name in TOOLS and value:
            raise unsupported(f"{place}.{name}", "tools and audio are not supported", "unsupported_parameter")
        if name not in (*TOOLS, *WITHOUT_EFFECT) and value is not None:
            raise unsupported(f"{place}.{name}", "messages have no such field", "unknown_parameter")
    return ROLES[message.role]


def _text(message: ChatMessage, place: str) -> str:
    content = message.refusal if message.content is None else message.content
    if content is None:
        code = "missing_required_parameter"
        raise InvalidRequest("a message needs its content", param=f"{place}.content", code=code)
    if isinstance(content, list):
        content = "".join(_part(part, f"{place}.content[{index}]") for index, part in enumerate(content))
    text: str = clean(content)
    return text


def _part(part: ContentPart, place: str) -> str:
    text = {"text": part.text, "refusal": part.refusal}.get(part.type)
    if text is None:
        raise unsupported(place, "only parts of the type text are supported", "unsupported_parameter")
    return text
