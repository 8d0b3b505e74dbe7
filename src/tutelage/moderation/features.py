"""Text as hashed n-grams: characters 2 to 5 within words, words 1 to 2. Chinese, written without spaces, is
covered by the characters."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tutelage.moderation.chinese import SIMPLIFIED

Hashes = npt.NDArray[np.uint64]

BITS = 18
"""There are 2 ** BITS buckets."""
WINDOW = 400
"""The most characters that are judged as one."""
STEP = 250
"""How far apart windows of a long text begin."""

_LINK = re.compile(r"(?:https?://|www\.)\S+")
_MENTION = re.compile(r"(?<!\w)@\w+")
_SPELLED_OUT = re.compile(r"(?<![a-z])[a-z](?:[ .*_-][a-z]){3,}(?![a-z])")
_DISGUISED = re.compile(r"(?<=[a-z])[013457@$]+(?=[a-z])")
_PLAIN = str.maketrans("013457@$", "oieastas")
_NUMBER = re.compile(r"\d+")
_STRETCHED = re.compile(r"(.)\1{2,}")
_QUOTE = re.compile(r"['’`]")
_SYMBOL = re.compile(r"([^\w\s])")
_SPACE = re.compile(r"[\s_]+")

_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
_MIX = np.uint64(0xBF58476D1CE4E5B9)
_SPACE_CODE = 32
_LONGEST_WORD = 64
_POWERS = _MULTIPLIER ** np.arange(1, _LONGEST_WORD + 1, dtype=np.uint64)


@dataclass(frozen=True, slots=True)
class Rows:
    """Sparse binary rows: row r holds `indices[starts[r]:starts[r + 1]]`, ascending and without repeats."""

    indices: npt.NDArray[np.uint32]
    starts: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts) - 1

    @property
    def sizes(self) -> npt.NDArray[np.int64]:
        return np.diff(self.starts)

    def take(self, rows: npt.NDArray[np.int64]) -> Rows:
        """Some of the rows, in the order asked for."""
        sizes = self.sizes[rows]
        starts = np.concatenate([[0], np.cumsum(sizes)])
        offsets = np.repeat(self.starts[rows] - starts[:-1], sizes)
        return Rows(self.indices[np.arange(starts[-1]) + offsets], starts)


def normalise(text: str) -> str:
    """The form that is judged: words of plain lower-case letters and single symbols, one space apart.

    Undoes compatibility forms, case, accents, invisible characters, light disguises (`h4te`, `h a t e`,
    `haaaate`) and Traditional Chinese; links, mentions and numbers become placeholders.
    """
    if not text.isascii():
        decomposed = unicodedata.normalize("NFKD", text)
        kept = (char for char in decomposed if unicodedata.category(char) not in ("Mn", "Cf"))
        text = unicodedata.normalize("NFC", "".join(kept)).translate(SIMPLIFIED)
    text = _LINK.sub(" url ", text.casefold())
    text = _MENTION.sub(" user ", text)
    text = _SPELLED_OUT.sub(lambda match: re.sub(r"[^a-z]", "", match[0]), text)
    text = _DISGUISED.sub(lambda match: match[0].translate(_PLAIN), text)
    text = _NUMBER.sub("0", text)
    text = _STRETCHED.sub(r"\1\1", text)
    text = _SYMBOL.sub(r" \1 ", _QUOTE.sub("", text))
    return _SPACE.sub(" ", text).strip()


def windows(text: str) -> list[str]:
    """Overlapping stretches of a long text, each short enough to be judged as one; the last ends with the text."""
    if len(text) <= WINDOW:
        return [text]
    starts = [*range(0, len(text) - WINDOW, STEP), len(text) - WINDOW]
    return [text[start : start + WINDOW] for start in starts]


def hashed(texts: Sequence[str], *, bits: int = BITS) -> Rows:
    """The n-grams of each text as buckets below 2 ** bits. Vectorised over all texts at once."""
    padded = [f" {normalise(text)} " for text in texts]
    codes = np.frombuffer("".join(padded).encode("utf-32-le", "replace"), dtype="<u4").astype(np.uint64)
    row_of = np.repeat(np.arange(len(padded)), [len(text) for text in padded])
    grams = [*_characters(codes), *_words(codes, row_of)]
    rows = np.concatenate([row_of[at] for at, _ in grams]).astype(np.uint64)
    buckets = np.concatenate([_bucket(hashes, bits) for _, hashes in grams])
    keys = np.unique(rows << np.uint64(bits) | buckets)
    edges = np.arange(len(padded) + 1, dtype=np.uint64) << np.uint64(bits)
    starts = np.searchsorted(keys, edges).astype(np.int64)
    return Rows((keys & np.uint64((1 << bits) - 1)).astype(np.uint32), starts)


def _characters(codes: Hashes) -> list[tuple[npt.NDArray[np.intp], Hashes]]:
    """Positions and hashes of single Chinese characters and of 2 to 5 characters without a space inside."""
    space = codes == _SPACE_CODE
    spaces_before = np.concatenate([[0], np.cumsum(space)])
    han = np.flatnonzero((codes >= 0x3400) & (codes <= 0x9FFF))
    grams = [(han, codes[han])]
    rolling = codes
    for size in range(2, min(5, len(codes)) + 1):
        rolling = rolling[:-1] * _MULTIPLIER + codes[size - 1 :]
        inside = spaces_before[size - 1 : len(codes)] - spaces_before[1 : len(codes) - size + 2]
        whole = inside == 0
        if size == 2:
            whole &= ~(space[:-1] & space[1:])
        at = np.flatnonzero(whole)
        grams.append((at, rolling[at] + np.uint64(size)))
    return grams


def _words(codes: Hashes, row_of: npt.NDArray[np.intp]) -> list[tuple[npt.NDArray[np.intp], Hashes]]:
    """Positions and hashes of words and of pairs of neighbouring words."""
    space = codes == _SPACE_CODE
    starts = np.flatnonzero(~space & np.concatenate([[True], space[:-1]]))
    if not len(starts):
        return []
    since = (
        np.arange(len(codes))
        - starts[np.maximum(np.searchsorted(starts, np.arange(len(codes)), "right") - 1, 0)]
    )
    terms = np.where(space, np.uint64(0), codes * _POWERS[since % _LONGEST_WORD])
    words = np.add.reduceat(terms, starts) ^ _MIX
    same_row = row_of[starts[:-1]] == row_of[starts[1:]]
    pairs = (words[:-1] * _MULTIPLIER + words[1:])[same_row]
    return [(starts, words), (starts[:-1][same_row], pairs)]


def _bucket(hashes: Hashes, bits: int) -> Hashes:
    mixed = (hashes ^ (hashes >> np.uint64(31))) * _MIX
    mixed ^= mixed >> np.uint64(29)
    return (mixed * _MULTIPLIER) >> np.uint64(64 - bits)
