"""Weights that came from 4 bits, held in 4 bits for few rows: nothing is lost, and only where it is faster."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from tutelage.models import four_bit as four_bits
from tutelage.models.adapters import AdapterShape
from tutelage.models.four_bit import MOST_ROWS, four_bit, hold_in_four_bits
from tutelage.models.generation import Batch, Request
from tutelage.models.interface import CausalModel
from tutelage.models.loading import load_model

DTYPES = [torch.float32, torch.bfloat16]


def random(*size: int) -> Tensor:
    return torch.randn(size, generator=torch.Generator().manual_seed(sum(size)))


def coarse(weight: Tensor) -> Tensor:
    """The matrix as 4 bits hold it: each group of 32 in sixteen steps from its smallest to its largest number."""
    groups = weight.float().view(len(weight), -1, 32)
    least, most = groups.aminmax(dim=-1, keepdim=True)
    step = (most - least) / 15
    return (((groups - least) / step).round() * step + least).view(weight.shape).to(weight.dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("rows", range(1, MOST_ROWS + 1))
def test_a_matrix_from_four_bits_is_multiplied_as_it_is(dtype: torch.dtype, rows: int) -> None:
    weight, bias, x = coarse(random(48, 96)).to(dtype), random(48).to(dtype), random(rows, 96).to(dtype)
    narrow = four_bit(weight, bias)
    assert narrow is not None
    exact = x.double() @ weight.double().t() + bias.double()
    atol, rtol = (0.2, 0.02) if dtype == torch.bfloat16 else (1e-4, 1e-4)
    assert_close(narrow(x).double(), exact, atol=atol, rtol=rtol)
    strided = torch.cat([x, x], dim=-1)[:, :96]
    assert torch.equal(narrow(strided), narrow(x))


def test_groups_of_equal_numbers_stay_what_they_are() -> None:
    weight = torch.zeros(16, 64)
    weight[:, 32:] = 0.5
    narrow = four_bit(weight, None)
    assert narrow is not None
    assert_close(narrow(torch.ones(1, 64)), torch.full((1, 16), 16.0))


@pytest.mark.parametrize(
    "weight",
    [random(48, 96), random(48, 80), coarse(random(40, 96)), torch.full((16, 32), float("nan"))],
    ids=["random", "no groups", "no blocks", "not numbers"],
)
def test_other_matrices_have_no_form_in_four_bits(weight: Tensor) -> None:
    assert four_bit(weight, None) is None


def test_adapters_stand_beside() -> None:
    weight, x = coarse(random(48, 96)), random(2, 96)
    pairs = [(random(4, 96), random(48, 4)), (random(3, 96), random(48, 3))]
    narrow, whole = four_bit(weight, None), weight
    assert narrow is not None
    for down, up in pairs:
        narrow, whole = narrow.beside(down, up), whole + up @ down
        assert_close(narrow(x), x @ whole.t(), atol=1e-3, rtol=1e-3)


@pytest.fixture
def model(home: Path) -> CausalModel:
    """`tiny`, its layers rounded to what 4 bits hold."""
    loaded = load_model("tiny", home, dtype="bfloat16").model
    for layer in loaded.adapted_layers():
        if layer.weight.shape[1] % 32 == 0:  # all but those with 176 inputs
            layer.weight = coarse(layer.weight)
    return loaded


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """What measurements say from the last on; one that was made is gone from the list."""
    said: list[bool] = []
    monkeypatch.setattr(four_bits, "_pays", lambda pairs: said.pop())
    return said


def held(model: CausalModel) -> int:
    return sum(layer.few is not None for layer in model.adapted_layers())


@pytest.mark.parametrize("pays", [True, False])
def test_the_measurement_decides_and_is_kept(
    model: CausalModel, measured: list[bool], tmp_path: Path, pays: bool
) -> None:
    for answers in ([pays], []):
        measured[:] = answers
        hold_in_four_bits(model.adapted_layers(), tmp_path)
        assert held(model) == (6 if pays else 0)
        for layer in model.adapted_layers():
            layer.few = None
    assert list(json.loads((tmp_path / "measured.json").read_text()).values()) == [pays]
    assert [file.name for file in tmp_path.iterdir()] == ["measured.json"]


@pytest.mark.parametrize("content", ["", "[1]", '{"another machine": false}'])
def test_what_was_kept_for_another_machine_or_broken_is_measured_anew(
    model: CausalModel, measured: list[bool], tmp_path: Path, content: str
) -> None:
    (tmp_path / "measured.json").write_text(content)
    measured[:] = [True]
    hold_in_four_bits(model.adapted_layers(), tmp_path)
    assert held(model)
    assert not measured


def test_a_home_that_cannot_be_written_does_not_matter(
    model: CausalModel, measured: list[bool], tmp_path: Path
) -> None:
    measured[:] = [True]
    hold_in_four_bits(model.adapted_layers(), tmp_path / "missing")
    assert held(model)


def test_it_is_really_measured(model: CausalModel, tmp_path: Path) -> None:
    hold_in_four_bits(model.adapted_layers(), tmp_path)
    (verdict,) = json.loads((tmp_path / "measured.json").read_text()).values()
    assert bool(held(model)) is verdict


def logprobs(model: CausalModel, companions: int) -> Tensor:
    """Log-probabilities of the same forced tokens, with so many other streams in the batch."""
    batch = Batch(model, frozenset(), slots=1 + companions)
    forced = Request(prompt_ids=(5, 6, 7), max_tokens=12, seed=0, logit_bias={44: 1e4})
    key = batch.add(forced)
    for each in range(companions):
        batch.add(Request(prompt_ids=(8 + each, 9), max_tokens=12, seed=each))
    found = []
    while batch.busy:
        found += [token.logprob for token in batch.step() if token.key == key]
    batch.close()
    return torch.tensor(found)


def test_a_stream_alone_says_what_it_says_in_company(
    model: CausalModel, measured: list[bool], tmp_path: Path
) -> None:
    measured[:] = [True]
    hold_in_four_bits(model.adapted_layers(), tmp_path)
    model.add_adapter("tuned", AdapterShape(rank=2, alpha=4), seed=0)
    for index, parameter in enumerate(model.adapter_parameters("tuned")):
        numbers = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(index))
        parameter.data.copy_(0.1 * numbers)
    bare = logprobs(model, 0)
    model.merge_adapter("tuned")
    alone, pair, crowd = (logprobs(model, companions) for companions in (0, MOST_ROWS - 1, MOST_ROWS + 2))
    assert_close(alone, crowd, atol=0.15, rtol=0)
    assert_close(pair, crowd, atol=0.15, rtol=0)
    assert float((bare - alone).abs().max()) > 0.3  # the adapter counts
