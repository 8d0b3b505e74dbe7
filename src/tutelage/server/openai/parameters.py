"""What requests for text have in common: how it is drawn, where it ends, how it is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from tutelage.engine.interface import Sampling
from tutelage.errors import InvalidRequest

MOST_CHOICES = 128
MOST_STOPS = 4
MOST_BIASES = 1024
LARGEST_BIAS = 100.0


class StreamOptions(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class TextRequest(BaseModel):
    """The parameters of every endpoint that writes. Extra ones are kept, so that `check` can name them.

    `OFF` holds parameters that are not supported, with the values that mean that they are not used.
    """

    model_config = ConfigDict(extra="allow", strict=True, allow_inf_nan=False)
    OFF: ClassVar[Mapping[str, tuple[Any, ...]]] = {}

    model: str = Field(min_length=1, max_length=200)
    n: int | None = Field(None, ge=1, le=MOST_CHOICES)
    stop: str | list[str] | None = None
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, ge=0, le=1)
    presence_penalty: float | None = Field(None, ge=-2, le=2)
    frequency_penalty: float | None = Field(None, ge=-2, le=2)
    logit_bias: dict[str, float] | None = Field(None, max_length=MOST_BIASES)
    user: str | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None

    def check(self) -> None:
        """Raise InvalidRequest, naming the parameter, for anything that would not be honoured."""
        for name, value in (self.model_extra or {}).items():
            if name not in self.OFF:
                raise unsupported(name, f"unknown parameter: {name[:100]}", "unknown_parameter")
            if value is not None and value not in self.OFF[name]:
                raise unsupported(name, f"{name} is not supported with this value", "unsupported_parameter")
        if self.stream_options is not None and not self.stream:
            raise InvalidRequest(
                "stream_options is for streams only", param="stream_options", hint="set stream"
            )

    @property
    def choices(self) -> int:
        return self.n or 1

    @property
    def with_usage(self) -> bool:
        """Whether a stream ends with the tokens it took."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def stops(self) -> tuple[str, ...]:
        """Raises InvalidRequest for too many or empty ones."""
        stops = () if self.stop is None else (self.stop,) if isinstance(self.stop, str) else tuple(self.stop)
        if len(stops) > MOST_STOPS or "" in stops:
            raise InvalidRequest(f"stop takes up to {MOST_STOPS} strings, none of them empty", param="stop")
        return stops

    @property
    def longest(self) -> int | None:
        """The most tokens of an answer; None up to the end of the context."""
        return None

    @property
    def alternatives(self) -> int:
        """How many of the most probable tokens to name beside each drawn one."""
        return 0

    def sampling(self, choice: int, vocabulary: int) -> Sampling:
        """How the choice of this index is drawn: each from its own seed.

        Raises InvalidRequest for biases of what is no token of the vocabulary.
        """
        return Sampling(
            temperature=1.0 if self.temperature is None else self.temperature,
            top_p=1.0 if self.top_p is None else max(self.top_p, 1e-6),
            max_tokens=self.longest,
            seed=None if self.seed is None else (self.seed + choice) % 2**63,
            logit_bias=dict(self._biases(vocabulary)),
            presence_penalty=self.presence_penalty or 0.0,
            frequency_penalty=self.frequency_penalty or 0.0,
            top_logprobs=self.alternatives,
        )

    def _biases(self, vocabulary: int) -> Iterator[tuple[int, float]]:
        for name, bias in (self.logit_bias or {}).items():
            token = int(name) if name.isascii() and name.isdecimal() and len(name) < 10 else vocabulary
            if token >= vocabulary or not -LARGEST_BIAS <= bias <= LARGEST_BIAS:
                raise InvalidRequest(
                    f"logit_bias takes token ids below {vocabulary}, each with a number from -100 to 100",
                    param="logit_bias",
                )
            yield token, bias


def unsupported(
    param: str, message: str, code: Literal["unknown_parameter", "unsupported_parameter"]
) -> InvalidRequest:
    """The refusal of a parameter that would have no effect."""
    hint = "leave it out, or switch it off in the program that sends it"
    return InvalidRequest(message, param=param[:200], code=code, hint=hint)
