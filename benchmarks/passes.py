"""One pass over a batch, scoring and learning, on this machine's GPU or processor: beside transformers with PEFT.

    python benchmarks/passes.py [--large]

Both sides hold the same random Llama in bf16, of the built-in model's size and with `--large` of 7.6 billion
parameters, with LoRA of rank 16 on every linear layer, and read rows of 256 tokens. Scoring is a forward pass with the
log-probability of every token, learning adds the backward pass to the adapter. `uneven` cuts the rows at 128 to 256
tokens, for ours alone: the peer would pad them. Medians of 7 after 2; memory is the most that learning took on a GPU.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from tutelage.models.adapters import AdapterShape
from tutelage.models.layout import Layout, sequences
from tutelage.models.logprobs import token_scores
from tutelage.models.transformer import Architecture, Transformer

ROW = 256
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
SMALL = {"width": 576, "inner": 1536, "layers": 30, "heads": 9, "key_heads": 3, "vocabulary": 49_152}
LARGE = {"width": 3584, "inner": 18_944, "layers": 28, "heads": 28, "key_heads": 4, "vocabulary": 152_064}
Passes = tuple[Callable[[list[int]], None], Callable[[list[int]], None]]
"""Score, and learn from, rows of these lengths."""


def tokens(lengths: list[int], vocabulary: int) -> Tensor:
    return torch.randint(5, vocabulary, (sum(lengths),), device=DEVICE)


def ours(size: dict[str, int]) -> Passes:
    shape = Architecture(
        **size,
        head_width=size["width"] // size["heads"],
        context_length=2048,
        norm_epsilon=1e-5,
        rope_theta=1e5,
        rope_scaling=None,
        tied_head=size is SMALL,
    )
    model = Transformer(shape, dict(weights(shape))).to(DEVICE)
    model.add_adapter("policy", AdapterShape(16, 32), seed=0)
    layouts: dict[tuple[int, ...], Layout] = {}

    def scores(lengths: list[int]) -> Tensor:
        token_ids = tokens(lengths, shape.vocabulary)
        layout = layouts.setdefault(tuple(lengths), sequences(lengths).to(DEVICE))
        with model.using("policy"):
            return token_scores(model.hidden(token_ids, layout)[:-1], model.head, token_ids[1:]).logprobs

    return torch.inference_mode()(scores), lambda lengths: (-scores(lengths).mean()).backward()


def weights(shape: Architecture) -> Iterator[tuple[str, Tensor]]:
    """Random tensors under the names that a model of the family has on disk."""

    def drawn(*size: int) -> Tensor:
        return (torch.randn(*size, device=DEVICE) * 0.02).to(torch.bfloat16)

    width, inner, keys = shape.width, shape.inner, shape.key_heads * shape.head_width
    yield "model.embed_tokens.weight", drawn(shape.vocabulary, width)
    yield "model.norm.weight", torch.ones(width, dtype=torch.bfloat16, device=DEVICE)
    if not shape.tied_head:
        yield "lm_head.weight", drawn(shape.vocabulary, width)
    for index in range(shape.layers):
        at = f"model.layers.{index}."
        for name, outputs, inputs in (
            ("self_attn.q_proj", width, width),
            ("self_attn.k_proj", keys, width),
            ("self_attn.v_proj", keys, width),
            ("self_attn.o_proj", width, width),
            ("mlp.gate_proj", inner, width),
            ("mlp.up_proj", inner, width),
            ("mlp.down_proj", width, inner),
        ):
            yield f"{at}{name}.weight", drawn(outputs, inputs)
        for name in ("input_layernorm", "post_attention_layernorm"):
            yield f"{at}{name}.weight", torch.ones(width, dtype=torch.bfloat16, device=DEVICE)


def theirs(size: dict[str, int]) -> Passes:
    from peft import LoraConfig, get_peft_model
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=size["width"],
        intermediate_size=size["inner"],
        num_hidden_layers=size["layers"],
        num_attention_heads=size["heads"],
        num_key_value_heads=size["key_heads"],
        vocab_size=size["vocabulary"],
        tie_word_embeddings=size is SMALL,
        attn_implementation="sdpa",
    )
    torch.set_default_dtype(torch.bfloat16)
    with DEVICE:
        base = LlamaForCausalLM(config)
    torch.set_default_dtype(torch.float32)
    model: Any = get_peft_model(base, LoraConfig(r=16, lora_alpha=32, target_modules="all-linear"))

    def loss(lengths: list[int]) -> Tensor:
        token_ids = tokens(lengths, size["vocabulary"]).view(len(lengths), -1)
        found: Tensor = model(input_ids=token_ids, labels=token_ids).loss
        return found

    return torch.inference_mode()(loss), lambda lengths: loss(lengths).backward()


def speed(work: Callable[[list[int]], None], lengths: list[int]) -> float:
    """Tokens a second."""
    seconds = []
    for _ in range(9):
        began = time.perf_counter()
        work(lengths)
        if DEVICE.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - began)
    return sum(lengths) / statistics.median(seconds[2:])


def uneven(total: int) -> list[int]:
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(ROW - len(lengths) * 37 % 128)
    return lengths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--large", action="store_true", help="7.6 billion parameters; 36 GB of GPU memory")
    parser.add_argument("--tokens", type=int, nargs="*", help="of a batch")
    given = parser.parse_args()
    size = LARGE if given.large else SMALL
    sizes = given.tokens or ([512, 2048] if given.large else [512, 2048, 8192, 16_384])
    print(f"{'tokens':>8}{'':>14}{'score tok/s':>14}{'learn tok/s':>14}{'uneven':>10}{'GB':>7}")
    found: dict[str, dict[int, tuple[float, float]]] = {}
    for name, make in (("tutelage", ours), ("transformers", theirs)):
        score, learn = make(size)
        for total in sizes:
            rows = [ROW] * (total // ROW)
            scored = speed(score, rows)
            if DEVICE.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            learnt = speed(learn, rows)
            memory = f"{torch.cuda.max_memory_allocated() / 1e9:.1f}" if DEVICE.type == "cuda" else ""
            mixed = f"{speed(learn, uneven(total)):.0f}" if make is ours else ""
            found.setdefault(name, {})[total] = (scored, learnt)
            print(f"{total:>8}{name:>14}{scored:>14.0f}{learnt:>14.0f}{mixed:>10}{memory:>7}", flush=True)
        del score, learn
    ratios = {
        f"{kind}_{total}": found["tutelage"][total][index] / found["transformers"][total][index]
        for total in sizes
        for index, kind in enumerate(("score", "learn"))
    }
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
