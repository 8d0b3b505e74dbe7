"""langchain-openai, as its users call it. Prints what came back as JSON."""

from __future__ import annotations

import asyncio
import json
import os
from typing import Any

import openai
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI, OpenAI

HI = [
    SystemMessage("Be kind."),
    HumanMessage("Hello"),
    AIMessage("Hi!"),
    HumanMessage([{"type": "text", "text": "Who are you?"}]),
]


def chat(**options: Any) -> ChatOpenAI:
    return ChatOpenAI(model="stable", max_retries=0, **options)


def answer(message: Any) -> dict[str, Any]:
    return {
        "text": message.content,
        "tokens": message.usage_metadata["total_tokens"],
        "reason": message.response_metadata["finish_reason"],
    }


async def together() -> list[Any]:
    return [message.content for message in await asyncio.gather(*(chat().ainvoke("Hi") for _ in range(3)))]


def refusal() -> Any:
    try:
        chat().with_structured_output({"title": "a", "type": "object", "properties": {}}).invoke("Hi")
    except openai.BadRequestError as error:
        return error.param
    return None


def main() -> None:
    everything = chat(
        temperature=0.5,
        top_p=0.9,
        seed=4,
        max_tokens=40,
        stop=["zzz"],
        presence_penalty=0.1,
        frequency_penalty=0.1,
        logprobs=True,
        top_logprobs=2,
        logit_bias={5: 1},
        n=1,
    ).invoke(HI)
    streamed = None
    for chunk in chat(stream_usage=True, logprobs=True).stream(HI):
        streamed = chunk if streamed is None else streamed + chunk
    assert streamed is not None
    text = OpenAI(model="stable", max_retries=0, max_tokens=100)
    found = {
        "whole": answer(chat().invoke(HI)),
        "everything": {
            **answer(everything),
            "logprobs": len(everything.response_metadata["logprobs"]["content"]),
        },
        "streamed": answer(streamed),
        "together": asyncio.run(together()),
        "completion": text.invoke("Say"),
        "completion_streamed": "".join(text.stream("Say")),
        "refused": refusal(),
        "base_url": os.environ["OPENAI_BASE_URL"],
    }
    print(json.dumps(found))


main()
