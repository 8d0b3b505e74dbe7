"""Text to token ids and back, from a folder in Hugging Face's layout, without torch or transformers."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import tokenizers

from tutelage.errors import ModelError, Sentence

_BYTE_TOKEN = re.compile("<0x[0-9A-F]{2}>")


def byte_symbols() -> list[str]:
    """The printable stand-ins of the 256 bytes that byte-level tokenizers use, in byte order."""
    plain = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in plain else chr(next(others)) for byte in range(256)]


_BYTES = {symbol: byte for byte, symbol in enumerate(byte_symbols())}


class Tokenizer(Protocol):
    """What rendering needs of a tokenizer."""

    def encode(self, text: str, *, special: bool) -> list[int]:
        """Token ids of `text`. With `special` False, a special token spelled out in it stays plain text."""

    def decode(self, token_ids: Sequence[int]) -> str:
        """Text of the ids, special tokens left out; incomplete UTF-8 becomes U+FFFD."""

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for, special tokens as they are spelled. Nothing for an unknown id."""


@dataclass(frozen=True, slots=True)
class TokenizerFolder:
    """Everything a model's folder says about its text: tokenizer, chat template, special tokens.

    `stop_ids` are all the tokens that end an answer; `pad_id` is never one of them.
    """

    tokenizer: HuggingFaceTokenizer
    chat_template: str
    special_tokens: dict[str, str]
    stop_ids: frozenset[int]
    pad_id: int
    vocabulary: int


class HuggingFaceTokenizer:
    """A `tokenizers` tokenizer that can be told to take special tokens in a text literally."""

    def __init__(self, tokenizer_json: str) -> None:
        self._plain = tokenizers.Tokenizer.from_str(tokenizer_json)
        self._plain.encode_special_tokens = True
        self._special = tokenizers.Tokenizer.from_str(tokenizer_json)
        for each in (self._plain, self._special):
            each.no_truncation()
            each.no_padding()
        self._added = self._special.get_added_tokens_decoder()
        self._byte_level = "ByteLevel" in json.dumps(json.loads(tokenizer_json).get("decoder"))

    def encode(self, text: str, *, special: bool) -> list[int]:
        tokenizer = self._special if special else self._plain
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: Sequence[int]) -> str:
        text: str = self._special.decode(list(token_ids), skip_special_tokens=True)
        return text

    def token_bytes(self, token_id: int) -> bytes:
        token: str | None = self._special.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._added:
            return token.encode()
        if self._byte_level:
            return bytes(_BYTES[symbol] for symbol in token if symbol in _BYTES)
        if _BYTE_TOKEN.fullmatch(token):
            return bytes([int(token[3:5], 16)])
        return token.replace("\u2581", " ").encode()

    def id_of(self, token: str) -> int | None:
        found: int | None = self._special.token_to_id(token)
        return found

    def special_ids(self) -> dict[str, int]:
        """The added tokens marked special, by their text."""
        return {token.content: index for index, token in self._added.items() if token.special}

    def size(self) -> int:
        size: int = self._special.get_vocab_size(with_added_tokens=True)
        return size


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(
            Sentence("cannot be read: {error}", error=error), where=str(path), hint="fetch the model again"
        ) from error


def _read_json(path: Path, *, required: bool) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if not required:
            return {}
        raise ModelError(
            Sentence("the model folder has no {path}", path=path.name),
            where=str(path.parent),
            hint="name a folder saved by save_pretrained, or a Hugging Face model id",
        ) from None
    except (OSError, ValueError) as error:
        raise ModelError(
            Sentence("cannot be read: {error}", error=error), where=str(path), hint="fetch the model again"
        ) from error
    if not isinstance(content, dict):
        raise ModelError("does not hold a JSON object", where=str(path), hint="fetch the model again")
    return content


def _token_text(value: object) -> str | None:
    """A special token is written as a string or as an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _chat_template(folder: Path, config: dict[str, Any]) -> str:
    template_file = folder / "chat_template.jinja"
    if template_file.exists():
        return _read_text(template_file)
    template = config.get("chat_template")
    if isinstance(template, list):  # several, by name
        entries = [entry for entry in template if isinstance(entry, dict)]
        template = next((entry.get("template") for entry in entries if entry.get("name") == "default"), None)
    if not isinstance(template, str):
        raise ModelError(
            "the model has no chat template, so nobody can say how its dialogues are written",
            where=str(folder),
            hint="put a chat_template.jinja into the folder, or choose a chat model (often named …-Instruct)",
        )
    return template


def _stop_ids(folder: Path, tokenizer: HuggingFaceTokenizer, eos: str | None) -> frozenset[int]:
    """Every end token the model's files name: generation config, model config and tokenizer."""
    found: set[int] = set()
    for name in ("generation_config.json", "config.json"):
        value = _read_json(folder / name, required=False).get("eos_token_id")
        found.update(value if isinstance(value, list) else [] if value is None else [value])
    index = tokenizer.id_of(eos) if eos else None
    if index is not None:
        found.add(index)
    if not found:
        raise ModelError(
            "the model names no end token, so an answer would never end",
            where=str(folder),
            hint="set eos_token_id in generation_config.json",
        )
    return frozenset(found)


def _pad_id(folder: Path, tokenizer: HuggingFaceTokenizer, pad: str | None, stop_ids: frozenset[int]) -> int:
    """The padding token, or another special token where the model pads with an end token."""
    wanted = tokenizer.id_of(pad) if pad else None
    candidates = [*([] if wanted is None else [wanted]), *sorted(tokenizer.special_ids().values())]
    for candidate in candidates:
        if candidate not in stop_ids:
            return candidate
    raise ModelError(
        "the model pads with its end token, and has no other special token to pad with",
        where=str(folder),
        hint="add a padding token: with pad = eos, training cannot tell an ended answer from a cut one",
    )


def load_tokenizer(folder: Path) -> TokenizerFolder:
    """Read tokenizer.json, tokenizer_config.json and the end tokens of a model folder.

    Raises ModelError when a file is missing or broken, when there is no chat template or no end token.
    """
    _read_json(folder / "tokenizer.json", required=True)
    try:
        tokenizer = HuggingFaceTokenizer((folder / "tokenizer.json").read_text(encoding="utf-8"))
    except Exception as error:  # the Rust side raises bare Exception
        raise ModelError(
            Sentence("is not a tokenizer: {error}", error=error),
            where=str(folder / "tokenizer.json"),
            hint="fetch the model again",
        ) from error
    config = _read_json(folder / "tokenizer_config.json", required=False)
    tokens = {
        key: _token_text(config.get(key)) for key in ("bos_token", "eos_token", "pad_token", "unk_token")
    }
    stop_ids = _stop_ids(folder, tokenizer, tokens["eos_token"])
    return TokenizerFolder(
        tokenizer=tokenizer,
        chat_template=_chat_template(folder, config),
        special_tokens={key: text for key, text in tokens.items() if text is not None},
        stop_ids=stop_ids,
        pad_id=_pad_id(folder, tokenizer, tokens["pad_token"], stop_ids),
        vocabulary=tokenizer.size(),
    )
