"""llama.cpp reads our GGUF files and says what we say. Needs `pip install xllamacpp`, which carries llama.cpp."""

from __future__ import annotations

import json
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from tutelage.dialogue import Message
from tutelage.models.gguf_writer import write_gguf
from tutelage.models.layout import sequences
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.transformer import Transformer

xllamacpp = pytest.importorskip("xllamacpp", reason="llama.cpp is not there: pip install xllamacpp")

LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
LINEAR_ROPE = {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}
MODELS: list[tuple[str, str, dict[str, Any]]] = [
    ("llama", "smollm", {"tie_word_embeddings": True}),
    ("llama", "llama-bpe", {"rope_parameters": LLAMA3_ROPE}),
    ("llama", "gpt-2", {"rope_parameters": LINEAR_ROPE}),
    ("mistral", "gpt-2", {"sliding_window": None}),
    ("qwen2", "qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    ("qwen3", "qwen2", {"head_dim": 32}),
]
SAID = "the cat isn't 12345 什么,\n\n  élan that  other"


@contextmanager
def served(file: Path) -> Iterator[Callable[[str, dict[str, Any]], Any]]:
    """llama.cpp's own server on a file; gives a function that posts to it."""
    settings = xllamacpp.CommonParams()
    settings.model.path = str(file)
    settings.n_ctx, settings.n_parallel, settings.port = 128, 1, 0
    settings.cpuparams.n_threads = settings.cpuparams_batch.n_threads = 1
    settings.verbosity, settings.warmup = -1, False
    settings.cache_ram_mib = 0
    server = xllamacpp.Server(settings)

    def post(path: str, body: dict[str, Any]) -> Any:
        request = urllib.request.Request(server.listening_address + path, json.dumps(body).encode())
        request.add_header("Content-Type", "application/json")
        with urllib.request.urlopen(request, timeout=60) as answer:
            return json.load(answer)

    yield post


@torch.no_grad()
def greedy(model: Transformer, prompt: list[int], count: int) -> tuple[list[int], list[float]]:
    """The likeliest tokens one after the other, with their log-probabilities."""
    token_ids, logprobs = list(prompt), []
    for _ in range(count):
        states = model.hidden(torch.tensor(token_ids), sequences([len(token_ids)]))
        scores = model.logits(states[-1:]).float().log_softmax(-1)[0]
        best = int(scores.argmax())
        token_ids.append(best)
        logprobs.append(float(scores[best]))
    return token_ids[len(prompt) :], logprobs


@pytest.mark.parametrize(("model_type", "family", "changes"), MODELS)
def test_llama_cpp_says_what_we_say(
    bpe_folder: Callable[..., Path], tmp_path: Path, model_type: str, family: str, changes: dict[str, Any]
) -> None:
    source = bpe_folder(model_type, family, **changes)
    loaded: LoadedModel = load_model(str(source), tmp_path, dtype="float32")
    assert isinstance(loaded.model, Transformer)
    write_gguf(loaded.model, source, tmp_path / "model.gguf", kind="f32", name="ours")
    prompt = loaded.renderer.prompt([Message("user", SAID)])
    expected, logprobs = greedy(loaded.model, prompt, 6)
    with served(tmp_path / "model.gguf") as post:
        assert post("/tokenize", {"content": SAID})["tokens"] == loaded.renderer.completion(SAID)
        body = {"messages": [{"role": "user", "content": SAID}]}
        text = post("/apply-template", body)["prompt"]
        assert post("/tokenize", {"content": text, "parse_special": True})["tokens"] == prompt
        asked = {"prompt": prompt, "n_predict": 6, "temperature": 0, "n_probs": 1, "return_tokens": True}
        said = post("/completion", asked | {"ignore_eos": True})
    assert said["tokens"] == expected
    # It gives no probability of a token that is a part of a character.
    found = {token["id"]: token["logprob"] for token in said["completion_probabilities"]}
    ours = dict(zip(expected, logprobs, strict=True))
    assert found == pytest.approx({token: ours[token] for token in found}, abs=0.02)
    assert found
