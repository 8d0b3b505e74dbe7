"""Titles of dialogues: the first words of the first message, without greetings and Markdown."""

from __future__ import annotations

import re

LONGEST = 60
WIDE = re.compile("[\u2e80-\u9fff\uac00-\ud7af\uf900-\ufaff\uff00-\uffef]")
GREETING = re.compile(
    r"(?:hi|hello|hey|good (?:morning|afternoon|evening)|dear \w+|你好|您好|哈囉|嗨|早安|午安|晚安)"
    r"(?: there)?[\s,.!?，。！？、～~]+",
    re.IGNORECASE,
)
MARKS = re.compile(r"^\s*(?:#{1,6}\s|>\s|[-*+]\s|\d+[.)]\s|```\w*\s*)|[*_`]{1,3}|!?\[|\]\([^)]*\)")
SENTENCE = re.compile(r"(?<=[.?!])\s|(?<=[。？！])")


def title_of(text: str) -> str:
    """The first sentence that says something, cut at a word to `LONGEST` columns; a Chinese letter takes two."""
    lines = [" ".join(MARKS.sub("", line).split()) for line in text.splitlines()]
    line = next(filter(None, lines), "") or " ".join(text.split())
    rest = line
    if greeting := GREETING.match(line):
        rest = line[greeting.end() :]
        rest = rest[:1].upper() + rest[1:]
    sentence = SENTENCE.split(rest or line, maxsplit=1)[0].strip()
    return _cut(sentence or line)


def _cut(text: str) -> str:
    columns, end = 0, len(text)
    for place, letter in enumerate(text):
        columns += 2 if WIDE.match(letter) else 1
        if columns > LONGEST:
            end = place
            break
    if end == len(text):
        return text
    piece = text[:end]
    whole = piece.rsplit(" ", 1)[0] if not WIDE.match(text[end]) else piece
    return (whole or piece).rstrip(" ,;:，、；：") + "…"
