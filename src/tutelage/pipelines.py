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

import torch
from torch import Tensor

from tutelage.datasets.preference import completion_ids
from tutelage.datasets.sources import fields
from tutelage.dialogue import Message, Role, check_turns
from tutelage.engine.interface import Sampling
from tutelage.errors import DataError, TutelageError
from tutelage.models.generation import FULL_BATCH, Batch, Request
from tutelage.models.loading import LoadedModel, load_version
from tutelage.registry import ModelVersion
from tutelage.training.reward_model import Judge

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
    batch = Batch(loaded.model, renderer.stop_ids, slots=FULL_BATCH)
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
                    seed=((sampling.seed or 0) + line.number) % 2**63,
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


@dataclass(frozen=True, slots=True)
class Scored:
    """What a line asked for: one dialogue, or several completions of one prompt (`several`), in tokens."""

    prompt: list[int]
    completions: list[list[int]]
    several: bool


def score_lines(source: BinaryIO, target: TextIO, judge: Judge, *, file: str = "") -> int:
    """Answer each line with its reward or rewards; returns the number of error lines, which name `file` and line.

    {"messages": […]} ending with the assistant, or {"prompt": …, "completion": …}, gives {"reward", "deviation"};
    {"prompt": …, "completions": […]} gives {"rewards": [{"reward", "deviation", "wins"}, …], "best"}, where `wins`
    is the calibrated probability to be better than another of the completions. A prompt is text or messages.
    """
    lines = _Lines(source)
    failed = 0
    while lines.open:
        order = deque(lines.take(_IN_FLIGHT, wait=True))
        good: list[tuple[_Line, Scored]] = []
        for line in order:
            try:
                good.append((line, scorable(_row(line.text), judge.loaded)))
            except TutelageError as error:
                line.answer = _error(error, line.number, file)
        scores = judge.score([(asked.prompt, asked.completions) for _, asked in good])
        for (line, asked), each in zip(good, scores, strict=True):
            line.answer = score_view(each, judge.reward.temperature, several=asked.several)
        failed += _print_finished(order, target)
    return failed


def scorable(row: dict[str, Any], loaded: LoadedModel) -> Scored:
    """The dialogue or dialogues of a row, in tokens. Raises DataError; nothing is ever cut."""
    if "messages" in row:
        messages = _checked(row["messages"], last="assistant")
        prompt, texts = messages[:-1], [messages[-1].content]
    else:
        prompt, texts = _prompt(row), _completions(row)
    prompt_ids = loaded.renderer.prompt(prompt)
    completions = [completion_ids(text, loaded.renderer) for text in texts]
    length, room = len(prompt_ids) + max(map(len, completions)), loaded.model.context_length
    if length > room:
        raise DataError(
            f"the dialogue has {length} tokens, and the model's context holds {room}",
            hint="shorten it: nothing is ever cut",
        )
    return Scored(prompt_ids, completions, "completions" in row)


def score_view(scores: Tensor, temperature: float, *, several: bool) -> dict[str, Any]:
    """Scores (completions, members) as plain JSON: the mean over members, their deviation, the chance to win."""
    rewards, deviations = scores.mean(dim=1), scores.std(dim=1, correction=0)
    rows = [
        {"reward": reward, "deviation": deviation}
        for reward, deviation in zip(rewards.tolist(), deviations.tolist(), strict=True)
    ]
    if not several:
        return dict(rows[0])
    others = max(1, len(rows) - 1)
    chances = (torch.sigmoid((rewards[:, None] - rewards) / temperature).sum(dim=1) - 0.5) / others
    ranked = [row | {"wins": chance} for row, chance in zip(rows, chances.tolist(), strict=True)]
    return {"rewards": ranked, "best": int(rewards.argmax())}


def _prompt(row: dict[str, Any]) -> tuple[Message, ...]:
    if "prompt" not in row:
        raise DataError('the line should have "messages", or "prompt" with "completion" or "completions"')
    if isinstance(row["prompt"], str):
        return (Message("user", fields.text(row["prompt"], "prompt")),)
    return _checked(row["prompt"], last="user", name="prompt")


def _completions(row: dict[str, Any]) -> list[str]:
    if ("completion" in row) == ("completions" in row):
        raise DataError('beside "prompt" the line should have either "completion" or "completions"')
    if "completion" in row:
        return [fields.text(row["completion"], "completion")]
    texts = fields.items(row["completions"], "completions")
    if not texts:
        raise DataError("completions is empty")
    return [fields.text(each, f"completions[{index}]") for index, each in enumerate(texts)]


def _messages(text: bytes, *, last: Role) -> tuple[Message, ...]:
    """The messages of one line. Raises DataError that says what is wrong with it."""
    row = _row(text)
    if "messages" not in row:
        raise DataError('the line should be an object with "messages"')
    return _checked(row["messages"], last=last)


def _checked(value: object, *, last: Role, name: str = "messages") -> tuple[Message, ...]:
    messages = fields.messages(value, name)
    if problem := check_turns(messages, last=last):
        raise DataError(problem)
    return messages


def _row(text: bytes) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError(f"this is not JSON: {error}") from None
    if not isinstance(row, dict):
        raise DataError(f"the line should be an object, not {fields.kind(row)}")
    return row


def _error(error: TutelageError, number: int, file: str = "") -> dict[str, Any]:
    place = {"file": file, "line": number} if file else {"line": number}
    return {"error": {"message": error.message, **place}}


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
