"""The model `tiny`, and small random models of each family beside transformers' own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
import tokenizers
import torch

from tutelage.models import tiny as tiny_model
from tutelage.models.generation import Batch, Completion, Request, Token, complete
from tutelage.models.gguf_layout import SPLITTERS, byte_level
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.transformer import Transformer, read_architecture, read_tensors

SIZES: dict[str, Any] = {
    "vocab_size": 264,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama, untied, with biases": ("llama", {"attention_bias": True, "mlp_bias": True, "head_dim": 12}),
    "llama 3 rope": ("llama", {"rope_parameters": LLAMA3_ROPE}),
    "linear rope": (
        "llama",
        {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 500.0}},
    ),
    "mistral": ("mistral", {"sliding_window": 64}),
    "qwen2": ("qwen2", {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen3": ("qwen3", {"head_dim": 16, "tie_word_embeddings": True}),
}


@dataclass(frozen=True)
class Pair:
    """One model twice: read by transformers and by this package, from the same folder, in fp32."""

    theirs: Any
    ours: Transformer
    folder: Path


@pytest.fixture
def own_tiny(home: Path) -> LoadedModel:
    """A `tiny` of the test's own, to put adapters on."""
    return load_model("tiny", home, dtype="float32")


@pytest.fixture(scope="session")
def exact(home: Path) -> Transformer:
    """`tiny` in fp64: how a batch is composed cannot change a draw through rounding."""
    model = load_model("tiny", home, dtype="float32").model
    assert isinstance(model, Transformer)
    return model.double()


@pytest.fixture(scope="session")
def ask_for() -> Callable[..., Request]:
    """Makes a request whose prompt differs by its length and seed."""

    def make(length: int = 5, **settings: Any) -> Request:
        seed = settings.setdefault("seed", 0)
        prompt = [3 + (7 * seed + 13 * place) % 250 for place in range(length)]
        return Request(prompt_ids=tuple(prompt), **{"max_tokens": 12, **settings})

    return make


@pytest.fixture(scope="session")
def ends() -> frozenset[int]:
    """End tokens: several, so that a random model comes to an end."""
    return frozenset({2, 40, 41, 42})


@pytest.fixture(scope="session")
def alone(ends: frozenset[int]) -> Callable[[Transformer, Request], Completion]:
    """What a request gives in a batch of its own."""
    return lru_cache(maxsize=1000)(lambda model, each: complete(model, ends, [each], slots=1)[0])


@pytest.fixture(scope="session")
def run_out() -> Callable[[Batch], dict[int, list[Token]]]:
    """Steps a batch to its end; gives the tokens of each key."""

    def run(batch: Batch) -> dict[int, list[Token]]:
        drawn: dict[int, list[Token]] = {}
        while batch.busy:
            for token in batch.step():
                drawn.setdefault(token.key, []).append(token)
        return drawn

    return run


@pytest.fixture(scope="session")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Pair]:
    """Makes the pair of a family of FAMILIES, once."""

    @lru_cache
    def make(family: str) -> Pair:
        folder = tmp_path_factory.mktemp("family")
        theirs = random_model(*FAMILIES[family])
        theirs.save_pretrained(folder)
        return Pair(theirs, read(folder), folder)

    return make


def random_model(model_type: str, changes: dict[str, Any]) -> Any:
    """transformers' model of a small config, with weights large enough for every part to matter."""
    from transformers import AutoConfig, AutoModelForCausalLM

    config = AutoConfig.for_model(model_type, **{**SIZES, **changes})
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name or ".ln_" in name:
                parameter.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
            else:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return model


def read(folder: Path) -> Transformer:
    shape = read_architecture(folder)
    assert shape is not None
    return Transformer(shape, read_tensors(folder, torch.float32, torch.device("cpu")))


@pytest.fixture(scope="session")
def random_network() -> Callable[[str, dict[str, Any]], Any]:
    """Makes a small random model of any family that transformers knows."""
    return random_model


@pytest.fixture
def change_config() -> Callable[..., None]:
    """Rewrites entries of a folder's config.json; None takes an entry away."""

    def change(folder: Path, **changes: object) -> None:
        content = {**json.loads((folder / "config.json").read_text()), **changes}
        kept = {key: value for key, value in content.items() if value is not None}
        (folder / "config.json").write_text(json.dumps(kept))

    return change


@pytest.fixture
def tiny_copy(tmp_path: Path) -> Path:
    """The folder of `tiny`, to be damaged."""
    tiny_model.write(tmp_path)
    return tmp_path


WORDS = [
    "the cat sat on the mat and that was that",
    "so they said: it's the other one, isn't it? 12345 67",
    "der Fluß, 什么, élan — naïve\n\n  the end",
]


def give_text(folder: Path, family: str) -> None:
    """Put a trained byte-pair tokenizer of a family into a model's folder."""
    raw = json.loads(tokenizers.Tokenizer(tokenizers.models.BPE()).to_str())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": SPLITTERS[family]}
    raw["decoder"] = byte_level(use_regex=True)
    tokenizer = tokenizers.Tokenizer.from_str(json.dumps(raw))
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=299,
        special_tokens=list(tiny_model.SPECIAL_TOKENS),
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(WORDS, trainer)
    config = (folder / "config.json").read_text()
    tiny_model.write_text_files(folder)
    (folder / "config.json").write_text(config)
    tokenizer.save(str(folder / "tokenizer.json"))


@pytest.fixture
def bpe_folder(tmp_path: Path) -> Callable[..., Path]:
    """A random model of a family with a trained tokenizer, as a folder."""

    def write(model_type: str = "llama", family: str = "smollm", **changes: Any) -> Path:
        folder = tmp_path / "source"
        sizes = {"vocab_size": 304, "hidden_size": 64, "intermediate_size": 96, "head_dim": 16}
        random_model(model_type, {**sizes, **changes}).save_pretrained(folder)
        give_text(folder, family)
        return folder

    return write
