"""The filter for text that is still being written: nothing leaves before it has been judged."""

from __future__ import annotations

import re

from tutelage.moderation.gate import Gate, Verdict

HELD_BACK = 200
"""The most characters that wait for a verdict."""
SHORTEST = 24
"""A sentence shorter than this waits for the next one, which bounds how often the classifier runs."""
LOOK_BACK = 600
"""Each verdict falls on the last so many characters, so a stream costs time linear in its length."""

_SENTENCE_END = re.compile(r"[.!?…]+[\"'”’)\]]*\s|[。！？\n]")


class StreamGate:
    """Holds back the end of a stream until it is judged: to the end of a sentence, or for 200 characters.

    What is released depends on the text alone, not on how it was cut into pieces: pieces end where the text says
    so. Each piece is judged together with what came before it (`LOOK_BACK`), and `finish` judges the whole.
    One stream, one thread.
    """

    def __init__(self, gate: Gate, *, context: str = "") -> None:
        self._gate = gate
        self._context = context
        self._waiting = ""
        self._released: list[str] = []
        self._recent = ""
        self._worst: Verdict | None = None

    @property
    def cut(self) -> bool:
        """Whether the stream was blocked: nothing more will be released."""
        return self._worst is not None and self._worst.state == "blocked"

    def push(self, delta: str) -> str:
        """Take more text; return what may now be shown, which may be nothing."""
        if self.cut:
            return ""
        self._waiting += delta
        cleared: list[str] = []
        while (end := piece_end(self._waiting)) is not None:
            piece, self._waiting = self._waiting[:end], self._waiting[end:]
            if not self._clears(piece):
                break
            cleared.append(piece)
        return "".join(cleared)

    def finish(self) -> tuple[str, Verdict]:
        """The rest that may be shown, and the verdict on the whole text."""
        if self.cut:
            assert self._worst is not None
            return "", self._worst
        whole = self._gate.check(
            "".join(self._released) + self._waiting, side="output", context=self._context
        )
        if whole.state == "blocked":
            self._worst = whole
            return "", whole
        rest, self._waiting = self._waiting, ""
        self._released.append(rest)
        return rest, self._worst if self._worst is not None and whole.state != "warned" else whole

    def _clears(self, piece: str) -> bool:
        self._recent = (self._recent + piece)[-LOOK_BACK:]
        verdict = self._gate.check(self._recent, side="output", context=self._context)
        if verdict.state in ("warned", "blocked"):
            self._worst = verdict
        if verdict.state == "blocked":
            return False
        self._released.append(piece)
        return True


def piece_end(text: str) -> int | None:
    """Where the first piece of `text` ends, or None while only more text can tell.

    Found from the characters before the end alone, so that more text never moves it.
    """
    for match in _SENTENCE_END.finditer(text, 0, HELD_BACK):
        if match.end() >= SHORTEST:
            return match.end()
    if len(text) < HELD_BACK:
        return None
    space = text.rfind(" ", SHORTEST, HELD_BACK)
    return space + 1 if space >= 0 else HELD_BACK
