"""Which version answers a conversation, and whether a version can answer at all."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from random import SystemRandom

from anyio import fail_after
from anyio.to_thread import run_sync
from sqlalchemy.orm import Session

from tutelage.dialogue import Message
from tutelage.engine.interface import Sampling
from tutelage.engine.pool import Engines, Lease
from tutelage.errors import Conflict, ModelError, NotFound, Sentence
from tutelage.server.prompting import fit
from tutelage.server.transactions import read
from tutelage.store import Store, dialogues, experiments, pairs, tables

log = logging.getLogger(__name__)
_random = SystemRandom()

TRIAL = "What can you do for me?"
TRIAL_TOKENS = 16
TRIAL_SECONDS = 300.0


async def versions_for(store: Store, before: Sequence[tables.Message], count: int) -> list[str | None]:
    """Which version gives each of `count` answers to a conversation; None is the stable one.

    While two versions are compared, one answer comes from the version of this conversation, and of two each
    version gives one, in random order.
    """
    experiment = await read(store, experiments.running_experiment)
    if experiment is None or count == 1:
        return [experiments.version_for(experiment, before, _random)] * count
    return _random.sample([None, experiment.treatment], count)


async def offers_two(store: Store, user_id: str, dialogue_id: str | None) -> bool:
    """Whether a turn shows both versions that are being compared, though one answer was asked for.

    Now and then, never in a temporary chat, and never at two turns in a row of one person.
    """

    def drawn(tx: Session) -> bool:
        if experiments.running_experiment(tx) is None or _random.random() >= experiments.pairs_share(tx):
            return False
        if dialogue_id is not None and dialogues.get_dialogue(tx, dialogue_id, owner_id=user_id).temporary:
            return False
        return not pairs.last_was_one(tx, user_id)

    return await read(store, drawn)


async def lease_of(engines: Engines, version: str | None) -> Lease:
    """The engine of a version, or the stable one's when that version cannot answer.

    Raises what the stable version's engine raises.
    """
    if version is None:
        return await engines.lease()
    try:
        return await engines.lease(version)
    except (NotFound, ModelError):
        log.warning("version %s cannot answer: the stable one does", version)
        return await engines.lease()


async def own_lease(engines: Engines, version: str | None) -> Lease:
    """The engine of the version that began an answer. Raises Conflict when that version cannot answer any more."""
    try:
        return await engines.lease(version or "")
    except (NotFound, ModelError) as error:
        raise Conflict(
            "The version that began this answer cannot go on with it.", hint="Ask for more in a new message."
        ) from error


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
            raise _broken(name, Sentence("it did not answer in time")) from error
    if not logprobs:
        raise _broken(name, Sentence("it has nothing to say"))
    if not all(map(math.isfinite, logprobs)):
        raise _broken(name, Sentence("its probabilities are not numbers"))


def _broken(name: str, reason: str) -> ModelError:
    return ModelError(
        Sentence("Version {name} was asked a question and failed: {reason}.", name=name, reason=reason),
        hint="Train it again, or promote another version.",
    )
