"""`/v1/moderations`: what the content filter says of texts, in OpenAI's shape."""

from __future__ import annotations

import secrets
from typing import Annotated, Any

from anyio.to_thread import run_sync
from fastapi import APIRouter, Depends, Request
from pydantic import BaseModel, ConfigDict, Field

from tutelage.errors import InvalidRequest
from tutelage.moderation.openai import openai_result
from tutelage.server.openai.moderated import filter_name
from tutelage.server.permissions import api_key
from tutelage.server.services import services
from tutelage.store.tables import ApiKey

router = APIRouter(prefix="/v1")

MOST_INPUTS = 128


class TextInput(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    type: str
    text: str | None = None


class ModerationRequest(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    input: str | list[str] | list[TextInput]
    model: str | None = Field(None, max_length=200)

    def texts(self) -> list[str]:
        """The inputs; typed parts are one input together, as in OpenAI's API. Raises InvalidRequest."""
        if isinstance(self.input, str):
            return [self.input]
        plain = [item for item in self.input if isinstance(item, str)]
        parts = [item for item in self.input if isinstance(item, TextInput)]
        if any(part.type != "text" or part.text is None for part in parts):
            raise InvalidRequest(
                "only text can be moderated", param="input", hint="send parts of the type text"
            )
        texts = plain or ["\n".join(part.text or "" for part in parts)] * bool(parts)
        if not 1 <= len(texts) <= MOST_INPUTS:
            raise InvalidRequest(f"input takes 1 to {MOST_INPUTS} texts", param="input")
        return texts


@router.post("/moderations")
async def create_moderation(
    request: Request, body: ModerationRequest, key: Annotated[ApiKey, Depends(api_key("moderations"))]
) -> dict[str, Any]:
    """One result a text, by the policy for what people write."""
    gate, texts = services(request).gate, body.texts()
    scores = await run_sync(lambda: gate.scores(texts))
    return {
        "id": f"modr-{secrets.token_hex(12)}",
        "model": filter_name(gate),
        "results": [openai_result(each, gate.policy) for each in scores],
    }
