"""`/v1/rewards`: what a reward model says of dialogues, for trainers and evaluations elsewhere."""

from __future__ import annotations

from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from tutelage.datasets.preference import dialogue_ids
from tutelage.engine.interface import Scorer
from tutelage.errors import ContextTooLong, InvalidRequest, NotFound
from tutelage.server.errors import UnknownModel
from tutelage.server.openai.chat_request import ChatMessage, dialogue_of
from tutelage.server.openai.sending import usage
from tutelage.server.permissions import api_key
from tutelage.server.prompting import LONGEST_TOKEN
from tutelage.server.services import services
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")

MOST_INPUTS = 256


class ScoredDialogue(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    messages: list[ChatMessage] = Field(min_length=2, max_length=10_000)


class RewardRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    model: str = Field("latest", min_length=1, max_length=200)
    input: list[ScoredDialogue] = Field(min_length=1, max_length=MOST_INPUTS)


@router.post("/rewards")
async def create_rewards(
    request: Request, body: RewardRequest, key: Annotated[ApiKey, Depends(api_key("rewards"))]
) -> dict[str, Any]:
    """One reward a dialogue, of its last message, which is the assistant's."""
    try:
        scorer = await services(request).engines.scorer(body.model)
    except NotFound as error:
        raise UnknownModel(error.message, hint=error.hint) from None
    dialogues = await run_sync(
        lambda: [token_ids(scorer, each, f"input[{index}]") for index, each in enumerate(body.input)]
    )
    tokens = sum(len(prompt) + len(completion) for prompt, completion in dialogues)
    request.state.allowance.reserve(tokens)
    rewards = await scorer.rewards(dialogues)
    return {
        "object": "list",
        "model": scorer.version,
        "temperature": scorer.temperature,
        "data": [
            {"object": "reward", "index": index, "reward": each.value, "deviation": each.deviation}
            for index, each in enumerate(rewards)
        ],
        "usage": usage(tokens, 0),
    }


def token_ids(scorer: Scorer, dialogue: ScoredDialogue, place: str) -> tuple[list[int], list[int]]:
    """Prompt and completion. Raises InvalidRequest, and ContextTooLong: nothing is ever cut."""
    characters = sum(len(str(message.content)) for message in dialogue.messages)
    too_long = ContextTooLong(
        f"{place} has more tokens than the {scorer.context_length} that {scorer.version} reads",
        param=f"{place}.messages",
        hint="leave out old turns as a whole",
    )
    if characters > scorer.context_length * LONGEST_TOKEN:
        raise too_long
    messages = tuple(dialogue_of(dialogue.messages, f"{place}.messages"))
    if len(messages) < 2 or messages[-1].role != "assistant":
        raise InvalidRequest(
            f"{place} should be a prompt and, as its last message, the assistant's answer",
            param=f"{place}.messages",
        )
    prompt, completion = dialogue_ids(messages, scorer.renderer)
    if len(prompt) + len(completion) > scorer.context_length:
        raise too_long
    return prompt, completion
