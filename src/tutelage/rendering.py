"""The one contract between text and tokens: a dialogue becomes token ids and a completion mask, and back.

Training, serving, labelling export and evaluation all render here; nothing else knows a special token.

A chat template is run once for each sequence of roles, with placeholders where the contents go. What the
template writes around them may hold special tokens; the contents themselves are encoded as plain text, so
nobody can write a turn of the dialogue by typing `<|im_start|>`. By construction the prompt of a turn is a
prefix of the rendered dialogue that holds its answer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path

import jinja2
from jinja2.sandbox import ImmutableSandboxedEnvironment

from tutelage.dialogue import Message, Role
from tutelage.errors import ModelError, Sentence
from tutelage.tokenizer import TokenizerFolder, load_tokenizer

_CHECKED = 4  # answers at a dialogue's beginning whose prompts it has to begin with, beside its last one's
# A placeholder stands between vertical tabs: a template that trims its contents takes the tabs away.
_PLACEHOLDER = re.compile("(\x0b?)\ue000([0-9]+)\ue001(\x0b?)")


@dataclass(frozen=True, slots=True)
class Rendered:
    """Token ids of a dialogue, and which of them the assistant has written.

    `completion_mask[i]` is True where `token_ids[i]` belongs to an assistant's words or is the end token
    of an assistant's turn. Both have the same length.
    """

    token_ids: list[int]
    completion_mask: list[bool]


@dataclass(frozen=True, slots=True)
class _Scaffold:
    """What a template writes around the contents: `around[i]` before content i, the last one at the end.

    `trimmed[i]` says whether the template strips the left and the right side of content i.
    """

    around: tuple[tuple[int, ...], ...]
    texts: tuple[str, ...]
    trimmed: tuple[tuple[bool, bool], ...]

    def content(self, index: int, text: str) -> str:
        """The content as the template writes it."""
        left, right = self.trimmed[index]
        text = text.lstrip() if left else text
        return text.rstrip() if right else text


class Renderer:
    """Renders dialogues for one tokenizer and chat template."""

    def __init__(self, folder: TokenizerFolder) -> None:
        self.tokenizer = folder.tokenizer
        self.stop_ids = folder.stop_ids
        self.pad_id = folder.pad_id
        self.vocabulary = folder.vocabulary
        self._special_tokens = folder.special_tokens
        self._template = _compile(folder.chat_template)
        self._scaffold = lru_cache(maxsize=256)(self._make_scaffold)

    def prompt(self, messages: Sequence[Message]) -> list[int]:
        """Token ids of a dialogue up to the point where the assistant starts to speak.

        Raises ModelError when the template refuses these roles in this order.
        """
        return self._fill(messages, generation_prompt=True).token_ids

    def example(self, messages: Sequence[Message]) -> Rendered:
        """Token ids and completion mask of a whole dialogue.

        Raises ModelError when the template does not end an assistant's turn with a stop token, or does not
        write the start of that turn as it does for generation.
        """
        return self._fill(messages, generation_prompt=False)

    def completion(self, text: str) -> list[int]:
        """Token ids of an assistant's words alone, without the end token."""
        return self.tokenizer.encode(text, special=False)

    @property
    def end_id(self) -> int:
        """The token with which this template ends an assistant's turn."""
        scaffold = self._scaffold(("user", "assistant"), False)
        return scaffold.around[2][self._end_of_turn(scaffold.around[2])]

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of token ids, special tokens left out."""
        return self.tokenizer.decode(token_ids)

    def tokens(self, text: str) -> list[int]:
        """Token ids of a text that is no dialogue; special tokens that are spelled out in it count as such."""
        return self.tokenizer.encode(text, special=True)

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes of one token, which may be a part of a character; special tokens as they are spelled."""
        return self.tokenizer.token_bytes(token_id)

    def decoder(self) -> StreamDecoder:
        """A decoder for one stream of tokens."""
        return StreamDecoder(self)

    def _fill(self, messages: Sequence[Message], *, generation_prompt: bool) -> Rendered:
        scaffold = self._scaffold(tuple(message.role for message in messages), generation_prompt)
        token_ids = list(scaffold.around[0])
        mask = [False] * len(token_ids)
        for index, message in enumerate(messages):
            spoken = message.role == "assistant"
            content = self.tokenizer.encode(scaffold.content(index, message.content), special=False)
            after = scaffold.around[index + 1]
            end = self._end_of_turn(after) + 1 if spoken else 0
            token_ids += content
            token_ids += after
            mask += [spoken] * len(content) + [True] * end + [False] * (len(after) - end)
        return Rendered(token_ids, mask)

    def _end_of_turn(self, after: tuple[int, ...]) -> int:
        """Where in the tokens after an assistant's words the end token stands."""
        for index, token in enumerate(after):
            if token in self.stop_ids:
                return index
        raise ModelError(
            "the chat template does not end the assistant's turn with one of the model's end tokens",
            hint="name the token that ends a turn as eos_token_id in generation_config.json",
        )

    def _make_scaffold(self, roles: tuple[Role, ...], generation_prompt: bool) -> _Scaffold:
        scaffold = self._run_template(roles, generation_prompt)
        answers = [index for index, role in enumerate(roles) if role == "assistant"]
        # All would be as many runs of the template as there are answers, in a dialogue of a thousand turns.
        prompts = [self._scaffold(roles[:index], True) for index in answers[:_CHECKED]]
        prompts += [self._run_template(roles[:index], True) for index in answers[_CHECKED:][-1:]]
        for before in prompts:
            if scaffold.texts[: len(before.texts)] != before.texts:
                raise ModelError(
                    "the chat template writes an earlier turn differently once a later one follows",
                    hint="use a template that only appends: training must see the prompts of serving",
                )
        return scaffold

    def _run_template(self, roles: tuple[Role, ...], generation_prompt: bool) -> _Scaffold:
        messages = [{"role": role, "content": f"\x0b\ue000{i}\ue001\x0b"} for i, role in enumerate(roles)]
        try:
            text = self._template.render(
                messages=messages, add_generation_prompt=generation_prompt, **self._special_tokens
            )
        except jinja2.TemplateError as error:
            raise ModelError(
                Sentence(
                    "the chat template refuses the roles {roles}: {error}",
                    roles=", ".join(roles),
                    error=error,
                ),
                hint="most templates want an optional system message, then user and assistant in turn",
            ) from error
        found = list(_PLACEHOLDER.finditer(text))
        if [int(match[2]) for match in found] != list(range(len(roles))):
            raise ModelError(
                Sentence(
                    "the chat template leaves out or repeats a message of the roles {roles}",
                    roles=", ".join(roles),
                ),
                hint="use a template that writes every message once, in order",
            )
        edges = [0, *(edge for match in found for edge in match.span()), len(text)]
        texts = tuple(text[start:end] for start, end in zip(edges[::2], edges[1::2], strict=True))
        around = tuple(tuple(self.tokenizer.encode(piece, special=True)) for piece in texts)
        return _Scaffold(around, texts, tuple((not match[1], not match[3]) for match in found))


class StreamDecoder:
    """Turns a stream of tokens into text, holding back bytes that do not make a whole character yet."""

    def __init__(self, renderer: Renderer) -> None:
        self._decode = renderer.decode
        self._tokens: list[int] = []
        self._context = 0  # tokens before this index only give context to the decoder
        self._sent = 0  # tokens before this index have been given out

    def push(self, token_ids: Sequence[int]) -> str:
        """The text that is complete now."""
        self._tokens += token_ids
        before = self._decode(self._tokens[self._context : self._sent])
        text = self._decode(self._tokens[self._context :])
        if text.endswith("\ufffd") or len(text) <= len(before):
            return ""
        self._context, self._sent = self._sent, len(self._tokens)
        return text[len(before) :]

    def finish(self) -> str:
        """What is left, with U+FFFD for bytes that never became a character."""
        before = self._decode(self._tokens[self._context : self._sent])
        text = self._decode(self._tokens[self._context :])
        self._sent = len(self._tokens)
        return text[len(before) :]


def load_renderer(folder: Path) -> Renderer:
    """Renderer of a model folder in Hugging Face's layout. Raises ModelError as `load_tokenizer` does."""
    return Renderer(load_tokenizer(folder))


def _compile(chat_template: str) -> jinja2.Template:
    def raise_exception(message: str) -> None:
        raise jinja2.TemplateError(message)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now(UTC).strftime(form)
    try:
        return environment.from_string(chat_template)
    except jinja2.TemplateSyntaxError as error:
        raise ModelError(
            Sentence("the chat template cannot be parsed: {error}", error=error),
            hint="fetch the model again, or put a working chat_template.jinja into its folder",
        ) from error
