"""On a GPU: every stage learns what it learns on a CPU, and twice the same to the bit, also when it was interrupted."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.testing import assert_close

from tutelage.config import Settings
from tutelage.dialogue import Comparison, Dialogue
from tutelage.models.adapters import AdapterShape
from tutelage.models.layout import Layout, sequences, trees
from tutelage.models.logprobs import token_scores
from tutelage.models.transformer import Architecture, Transformer
from tutelage.training.dpo import DPOConfig, train_dpo
from tutelage.training.metrics import Run
from tutelage.training.ppo import PPOConfig, train_ppo
from tutelage.training.ppo_recipe import MixConfig, ValueConfig
from tutelage.training.reward import RewardConfig, train_reward
from tutelage.training.sft import SFTConfig, train_sft

pytestmark = pytest.mark.gpu
STAGES: dict[str, Settings] = {
    "sft": SFTConfig(model="tiny", batch_tokens=200, learning_rate=1e-2, held_out=0.2, checkpoint_every=1),
    "sft, full": SFTConfig(model="tiny", batch_tokens=200, full=True, held_out=0.2, checkpoint_every=1),
    "reward": RewardConfig(model="tiny", batch_tokens=200, members=2, held_out=0.2, checkpoint_every=1),
    "dpo": DPOConfig(model="tiny", batch_tokens=200, held_out=0.2, checkpoint_every=1),
    "dpo, full": DPOConfig(model="tiny", batch_tokens=200, full=True, held_out=0.2, checkpoint_every=1),
    "ppo": PPOConfig(
        model="tiny",
        steps=3,
        prompts_per_step=6,
        minibatches=2,
        max_new_tokens=8,
        held_out=0.5,
        checkpoint_every=1,
        value=ValueConfig(warmup_steps=1),
        mix=MixConfig(coefficient=0.1, demonstrations_per_step=4),
    ),
}
STAGES["ppo, full"] = STAGES["ppo"].model_copy(update={"full": True})
Learn = Callable[..., tuple[list[dict[str, float]], dict[str, Tensor]]]


@pytest.fixture
def learn(
    home: Path,
    tmp_path: Path,
    demonstrations: list[Dialogue],
    comparisons: list[Comparison],
    prompts: list[Dialogue],
    stages: tuple[Path, Path],
) -> Learn:
    """Carry out a stage, interrupted after its second step when asked to; its metrics and the weights it made."""
    sft, reward = stages

    def learn(stage: str, name: str, *, interrupted: bool = False) -> Any:
        config = STAGES[stage]
        kind = stage.partition(",")[0]
        run = Run.open(tmp_path / name, kind, config.model_dump(), resume=False)

        def carry_out() -> None:
            match config:
                case SFTConfig():
                    train_sft(config, demonstrations, run, home)
                case RewardConfig():
                    train_reward(config, comparisons, run, home, start=sft)
                case DPOConfig():
                    train_dpo(config, comparisons, run, home, start=sft)
                case PPOConfig():
                    mixed = demonstrations
                    train_ppo(config, prompts, run, home, start=sft, reward=reward, demonstrations=mixed)

        def stop(stage: str, done: int, total: int, metrics: dict[str, float]) -> None:
            if done == 2:
                raise KeyboardInterrupt

        if interrupted:
            run.progress = stop
            with pytest.raises(KeyboardInterrupt):
                carry_out()
            run.progress = lambda *news: None
        carry_out()
        lines = (run.folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        files = sorted(run.folder.rglob("*.safetensors"))
        made = {
            f"{file.relative_to(run.folder)} {key}": each
            for file in files
            for key, each in load_file(file).items()
        }
        return [json.loads(line) for line in lines], made

    return learn


@pytest.mark.parametrize("stage", STAGES)
def test_the_same_bits_twice_and_after_an_interruption(learn: Learn, stage: str) -> None:
    metrics, weights = learn(stage, "once")
    assert len(metrics) > 2
    assert weights
    for name, interrupted in (("again", False), ("interrupted", True)):
        _, others = learn(stage, name, interrupted=interrupted)
        assert others.keys() == weights.keys()
        assert [key for key in weights if not torch.equal(weights[key], others[key])] == []


@pytest.mark.parametrize("stage", STAGES)
def test_it_learns_what_it_learns_on_a_cpu(learn: Learn, stage: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found, _ = learn(stage, "gpu")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expected, _ = learn(stage, "cpu")
    for here, there in zip(found, expected, strict=True):
        for key in here.keys() - {"seconds", "step"}:
            if not key.startswith("seconds"):
                assert here[key] == pytest.approx(there[key], abs=2e-3, rel=2e-3), (here["step"], key)


def gradients(model: Transformer, layout: Layout) -> list[Tensor]:
    layout = layout.to(model.device)
    count = len(layout.positions)
    token_ids = torch.arange(count, device=model.device) * 31 % 250 + 5
    with model.using("policy"):
        scores = token_scores(model.hidden(token_ids, layout)[:-1], model.head, token_ids[1:])
        (-scores.logprobs.mean()).backward()
    parameters = model.adapter_parameters("policy")
    made = [parameter.grad for parameter in parameters if parameter.grad is not None]
    for parameter in parameters:
        parameter.grad = None
    return made


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize(
    "layout",
    [
        sequences([128] * 4),
        sequences([700, 300, 1100]),
        trees([(300, (200, 250, 170, 90)), (90, (64, 12, 5)), (40, (8,))]),
    ],
    ids=["even", "uneven", "trees"],
)
def test_gradients_have_the_same_bits_every_time(dtype: torch.dtype, layout: Layout) -> None:
    """At sizes where kernels share their work out: heads of 64, grouped keys, rows of a thousand tokens."""
    shape = Architecture(
        vocabulary=320, width=512, inner=1024, layers=2, heads=8, key_heads=2, head_width=64,
        context_length=2048, norm_epsilon=1e-5, rope_theta=1e4, rope_scaling=None, tied_head=True,
    )  # fmt: skip
    generator = torch.Generator().manual_seed(0)

    def drawn(*size: int) -> Tensor:
        return (torch.randn(size, generator=generator) * 0.05).to(dtype)

    tensors = {
        "model.embed_tokens.weight": drawn(320, 512),
        "model.norm.weight": torch.ones(512, dtype=dtype),
    }
    for index in range(shape.layers):
        at = f"model.layers.{index}."
        for name, size in {
            "self_attn.q_proj": (512, 512),
            "self_attn.k_proj": (128, 512),
            "self_attn.v_proj": (128, 512),
            "self_attn.o_proj": (512, 512),
            "mlp.gate_proj": (1024, 512),
            "mlp.up_proj": (1024, 512),
            "mlp.down_proj": (512, 1024),
        }.items():
            tensors[f"{at}{name}.weight"] = drawn(*size)
        for name in ("input_layernorm", "post_attention_layernorm"):
            tensors[f"{at}{name}.weight"] = torch.ones(512, dtype=dtype)
    model = Transformer(shape, tensors).to("cuda")
    model.add_adapter("policy", AdapterShape(16, 32), seed=0)
    with torch.no_grad():
        for parameter in model.adapter_parameters("policy"):
            parameter.add_(0.01)
    first = gradients(model, layout)
    for _ in range(5):
        assert_close(gradients(model, layout), first, rtol=0, atol=0)
