"""litellm, as its users call it. Prints what came back as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"

import litellm

HI = [{"role": "user", "content": "Hi"}]
OPTIONS: dict[str, Any] = {"api_base": os.environ["OPENAI_BASE_URL"], "num_retries": 0}


def chat(**options: Any) -> Any:
    return litellm.completion(model="openai/stable", messages=HI, **OPTIONS, **options)


async def together() -> list[Any]:
    calls = [litellm.acompletion(model="openai/stable", messages=HI, **OPTIONS) for _ in range(3)]
    return [each.choices[0].message.content for each in await asyncio.gather(*calls)]


def refusal() -> str:
    try:
        chat(response_format={"type": "json_object"})
    except litellm.BadRequestError as error:
        return str(error)
    return ""


def main() -> None:
    whole = chat(
        temperature=0.5,
        top_p=0.9,
        seed=4,
        max_tokens=40,
        stop=["zzz"],
        n=2,
        logprobs=True,
        top_logprobs=2,
        user="ann",
    )
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    text = litellm.text_completion(
        model="text-completion-openai/stable", prompt="Say", max_tokens=100, **OPTIONS
    )
    moderation = litellm.moderation(input="a murder", api_base=OPTIONS["api_base"])
    found = {
        "whole": [choice.message.content for choice in whole.choices],
        "reason": whole.choices[0].finish_reason,
        "tokens": whole.usage.total_tokens,
        "streamed": "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices),
        "streamed_tokens": [chunk.usage.total_tokens for chunk in chunks if getattr(chunk, "usage", None)],
        "together": asyncio.run(together()),
        "completion": text.choices[0].text,
        "flagged": moderation.results[0].flagged,
        "refused": refusal(),
    }
    print(json.dumps(found))


main()
