"""Fresh answers to rank beside one that was given, from one or several versions, at temperature 1."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from random import SystemRandom

from tutelage.dialogue import Message
from tutelage.errors import ModelError, NotFound
from tutelage.server.turn import Candidate, Turns
from tutelage.store.labelling import RankingTask

_random = SystemRandom()


async def sample_candidates(
    turns: Turns, task: RankingTask, versions: Sequence[str]
) -> AsyncGenerator[Candidate, None]:
    """Up to k − 1 answers to the task's prompt, each as it is ready; none is the given one, none comes twice.

    The versions answer in turn, from a random one on. One that is gone or broken is left out while another can
    answer. One more answer is drawn than needed, in case two agree. Raises NotFound, ModelError when none can.
    """
    prompt = [Message(row.role, row.content) for row in task.prompt]
    seen = {task.message.content.strip()}
    first = _random.randrange(len(versions))
    seed = _random.getrandbits(62)
    names = [versions[(first + index) % len(versions)] for index in range(task.k)]
    drawing = [
        asyncio.ensure_future(turns.candidates(name, prompt, 1, seed=seed + index))
        for index, name in enumerate(names)
    ]
    problem: Exception | None = None
    try:
        for next_one in asyncio.as_completed(drawing):
            try:
                found = await next_one
            except (NotFound, ModelError) as error:
                problem = error
                continue
            for sample in found:
                if sample["content"].strip() not in seen and len(seen) < task.k:
                    seen.add(sample["content"].strip())
                    yield sample
    finally:
        for each in drawing:
            each.cancel()
    if problem is not None and len(seen) == 1:
        raise problem
