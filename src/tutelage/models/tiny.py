"""The model `tiny`: two layers over bytes, for tests and for seeing the whole circle in a minute.

Its weights are random but the same everywhere; it says nothing sensible until it has been trained.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tutelage.tokenizer import byte_symbols

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
REVISION = 2  # of the weights below: an older cached copy is not taken for this one
SPECIAL_TOKENS = ("<|pad|>", "<|im_start|>", "<|im_end|>")
CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 264,
    "hidden_size": 64,
    "intermediate_size": 176,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "hidden_act": "silu",
    "max_position_embeddings": 1024,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "tie_word_embeddings": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "torch_dtype": "float32",
}
# The embedding is the head too, and adapters leave it as it is: were it small, no state could be sure of a byte.
EMBEDDING_DEVIATION = 0.4


def tokenizer_json() -> str:
    """A byte-level tokenizer without merges: one token a byte, after the special tokens."""
    vocabulary = {symbol: index for index, symbol in enumerate([*SPECIAL_TOKENS, *byte_symbols()])}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    return json.dumps(
        {
            "version": "1.0",
            "added_tokens": [{"id": i, "content": token, **flags} for i, token in enumerate(SPECIAL_TOKENS)],
            "pre_tokenizer": byte_level,
            "decoder": byte_level,
            "model": {"type": "BPE", "vocab": vocabulary, "merges": []},
        }
    )


def write_text_files(folder: Path) -> None:
    """Write everything but the weights: tokenizer, chat template and configs."""
    tokens = {"bos_token": SPECIAL_TOKENS[1], "eos_token": SPECIAL_TOKENS[2], "pad_token": SPECIAL_TOKENS[0]}
    (folder / "tokenizer.json").write_text(tokenizer_json(), encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({**tokens, "chat_template": CHAT_TEMPLATE}))
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": [2]}))
    (folder / "config.json").write_text(json.dumps(CONFIG))


def write(folder: Path) -> None:
    """Write the model as a Hugging Face folder. Imports torch."""
    import torch
    from safetensors.torch import save_file

    generator = torch.Generator().manual_seed(0)

    def normal(*shape: int, deviation: float = 0.1) -> torch.Tensor:
        return torch.randn(shape, generator=generator) * deviation

    width, inner = CONFIG["hidden_size"], CONFIG["intermediate_size"]
    keys = CONFIG["num_key_value_heads"] * CONFIG["head_dim"]
    tensors = {
        "model.embed_tokens.weight": normal(CONFIG["vocab_size"], width, deviation=EMBEDDING_DEVIATION),
        "model.norm.weight": torch.ones(width),
    }
    for layer in range(CONFIG["num_hidden_layers"]):
        at = f"model.layers.{layer}."
        tensors[at + "input_layernorm.weight"] = torch.ones(width)
        tensors[at + "post_attention_layernorm.weight"] = torch.ones(width)
        tensors[at + "self_attn.q_proj.weight"] = normal(width, width)
        tensors[at + "self_attn.k_proj.weight"] = normal(keys, width)
        tensors[at + "self_attn.v_proj.weight"] = normal(keys, width)
        tensors[at + "self_attn.o_proj.weight"] = normal(width, width)
        tensors[at + "mlp.gate_proj.weight"] = normal(inner, width)
        tensors[at + "mlp.up_proj.weight"] = normal(inner, width)
        tensors[at + "mlp.down_proj.weight"] = normal(width, inner)
    write_text_files(folder)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
