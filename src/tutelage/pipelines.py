"""Filters for pipelines: JSON lines in, JSON lines out in the same order, an error line for a bad line.

Lines are answered as they come: a reader thread feeds one continuous batch, so a pipe that trickles is
answered at once and a file that pours is answered many lines at a time.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread
from typing import Any, BinaryIO, TextIO

from tutelage.datasets.preference import dialogue_ids
from tutelage.datasets.sources import fields
from tutelage.dialogue import Message, Role, check_turns
from tutelage.engine.interface import Sampling
from tutelage.errors import DataError, TutelageError
from tutelage.models.generation import Batch, Request
from tutelage.models.loading import LoadedModel, load_model, load_version
from tutelage.registry import ModelVersion
from tutelage.training.reward_model import load_reward_model, score_completions

_IN_FLIGHT = 64


@dataclass(slots=True)
class _Line:
    """One input line on its way: `answer` is set when it is done."""

    number: int
    text: bytes
    token_ids: list[int] = field(default_factory=list)
    answer: dict[str, Any] | None = None


def generate_lines(
    source: BinaryIO, target: TextIO, version: ModelVersion, home: Path, sampling: Sampling
) -> int:
    """Answer {"messages": […]} lines with {"completion", "finish_reason"}; returns the number of error lines.

    Line n is drawn with the seed + n, so its answer does not depend on the other lines.
    """
    loaded = load_version(version, home)
    renderer = loaded.renderer
    batch = Batch(loaded.model, renderer.stop_ids, slots=32)
    lines = _Lines(source)
    order: deque[_Line] = deque()
    by_key: dict[int, _Line] = {}
    failed = 0
    while lines.open or order:
        for line in lines.take(_IN_FLIGHT - len(order), wait=not order):
            order.append(line)
            try:
                prompt = renderer.prompt(_messages(line.text, last="user"))
                room = batch.context_length - len(prompt)
                request = Request(
                    prompt_ids=prompt,
                    max_tokens=max(1, min(sampling.max_tokens or room, room)),
                    temperature=sampling.temperature,
                    top_p=sampling.top_p,
                    seed=(sampling.seed or 0) + line.number,
                )
                by_key[batch.add(request)] = line
            except TutelageError as error:
                line.answer = _error(error, line.number)
        for token in batch.step():
            line = by_key[token.key]
            if token.finish_reason != "stop":
                line.token_ids.append(token.token_id)
            if token.finish_reason:
                text = renderer.decode(line.token_ids)
                line.answer = {"completion": text, "finish_reason": token.finish_reason}
                del by_key[token.key]
        failed += _print_finished(order, target)
    return failed


def score_lines(source: BinaryIO, target: TextIO, version: ModelVersion, home: Path) -> int:
    """Answer {"messages": […]} lines with {"reward"}; returns the number of error lines."""
    if version.adapter is None:
        raise DataError(f"{version.name} has no reward model", hint="name a reward version (r1, r2, …)")
    loaded = load_model(version.model, home)
    judge = load_reward_model(loaded.model, version.adapter)
    lines = _Lines(source)
    failed = 0
    while lines.open:
        order = deque(lines.take(_IN_FLIGHT, wait=True))
        good: list[tuple[_Line, tuple[list[int], list[int]]]] = []
        for line in order:
            try:
                good.append((line, _scorable(line.text, loaded)))
            except TutelageError as error:
                line.answer = _error(error, line.number)
        rewards = score_completions(loaded.model, judge, [ids for _, ids in good]).mean(dim=1)
        for (line, _), reward in zip(good, rewards.tolist(), strict=True):
            line.answer = {"reward": reward}
        failed += _print_finished(order, target)
    return failed


def _scorable(text: bytes, loaded: LoadedModel) -> tuple[list[int], list[int]]:
    prompt, completion = dialogue_ids(_messages(text, last="assistant"), loaded.renderer)
    length, room = len(prompt) + len(completion), loaded.model.context_length
    if length > room:
        raise DataError(f"the dialogue has {length} tokens, and the model's context holds {room}")
    return prompt, completion


def _messages(text: bytes, *, last: Role) -> tuple[Message, ...]:
    """The messages of one line. Raises DataError that says what is wrong with it."""
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is not JSON: {error}") from None
    if not isinstance(row, dict) or "messages" not in row:
        raise DataError('the line should be an object with "messages"')
    messages = fields.messages(row["messages"], "messages")
    if problem := check_turns(messages, last=last):
        raise DataError(problem)
    return messages


def _error(error: TutelageError, number: int) -> dict[str, Any]:
    return {"error": {"message": error.message, "line": number}}


def _print_finished(order: deque[_Line], target: TextIO) -> int:
    """Print the answers at the head of the line; returns how many of them are errors."""
    failed = 0
    while order and order[0].answer is not None:
        answer = order.popleft().answer
        failed += "error" in (answer or {})
        target.write(json.dumps(answer, ensure_ascii=False) + "\n")
    target.flush()
    return failed


class _Lines:
    """Numbered, non-empty lines of a stream, read by a thread so that waiting for input never holds up work."""

    def __init__(self, source: BinaryIO) -> None:
        self.open = True
        self._queue: SimpleQueue[_Line | None] = SimpleQueue()
        Thread(target=self._read, args=(source,), daemon=True).start()

    def _read(self, source: BinaryIO) -> None:
        for number, text in enumerate(source, start=1):
            if text.strip():
                self._queue.put(_Line(number, text))
        self._queue.put(None)

    def take(self, most: int, *, wait: bool) -> Iterator[_Line]:
        """Up to `most` lines that are there; with `wait`, at least one unless the stream has ended."""
        for _ in range(most):
            if not self.open:
                return
            try:
                line = self._queue.get(block=wait)
            except Empty:
                return
            if line is None:
                self.open = False
                return
            wait = False
            yield line
