"""Which version answers a conversation, and whether a version can answer at all."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from random import SystemRandom

from anyio import fail_after
from anyio.to_thread import run_sync

from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.engine.pool import Engines, Lease
from tutelage.errors import ModelError, NotFound
from tutelage.server.prompting import fit
from tutelage.server.transactions import read
from tutelage.store import Store, experiments, tables

log = logging.getLogger(__name__)
_random = SystemRandom()

TRIAL = "What can you do for me?"
TRIAL_TOKENS = 16
TRIAL_SECONDS = 300.0


async def lease_for(store: Store, engines: Engines, before: Sequence[tables.Message]) -> Lease:
    """The engine that answers a conversation: the stable version's, or in its share that of the version compared.

    Raises what the stable version's engine raises.
    """
    experiment = await read(store, experiments.running_experiment)
    name = experiments.version_for(experiment, before, _random)
    if name is None:
        return await engines.lease()
    try:
        return await engines.lease(name)
    except (NotFound, ModelError):
        log.warning("version %s cannot answer: the stable one does", name)
        return await engines.lease()


async def try_version(engines: Engines, name: str) -> None:
    """Load a version and ask it something, before people do.

    Raises NotFound for an unknown one, ModelError for one that cannot be loaded or does not answer in tokens with
    finite probabilities.
    """
    with await engines.lease(name) as lease:
        sampling = Sampling(temperature=0.0, top_p=1.0, max_tokens=TRIAL_TOKENS)
        messages = [Message("user", TRIAL)]
        prompt = await run_sync(lambda: fit(lease.engine, messages, answer_tokens=TRIAL_TOKENS))
        logprobs: list[float] = []
        try:
            with fail_after(TRIAL_SECONDS):
                async for chunk in lease.engine.generate(prompt.token_ids, sampling):
                    logprobs += chunk.logprobs
        except TimeoutError as error:
            raise _broken(name, "it did not answer in time") from error
    if not logprobs:
        raise _broken(name, "it has nothing to say")
    if not all(map(math.isfinite, logprobs)):
        raise _broken(name, "its probabilities are not numbers")


def _broken(name: str, reason: str) -> ModelError:
    return ModelError(
        f"Version {name} was asked a question and failed: {reason}.",
        hint="Train it again, or promote another version.",
    )
