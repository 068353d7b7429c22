"""Products by oneDNN are the modules' own, are taken in the walk alone, and end with it."""

from __future__ import annotations

import pytest
import torch
from torch.overrides import _get_current_function_mode_stack
from transformers.pytorch_utils import Conv1D

import microtome as mt
from microtome.passes import products
from microtome.passes.products import ROWS, WEIGHTS, by_onednn
from microtome.passes.session import session

PROMPT = mt.Prompt("When Mary and John went to", donor="When John and Mary gave to", target=" Mary")
WIDE = 256
ROUNDING = 1e-4

needs_onednn = pytest.mark.skipif(products._product() is None, reason="no oneDNN in this torch")


@pytest.fixture(scope="module")
def wide(make_gpt2, tokenizer):
    """A model whose products are large enough."""
    model = mt.load(make_gpt2(n_embd=WIDE, n_layer=2), tokenizer=tokenizer)
    assert WIDE * WIDE >= WEIGHTS
    return model


@pytest.fixture
def taken(monkeypatch):
    """The rows of all products that oneDNN took."""
    found, plain = [], products._product()

    def noted(x, weight, bias):
        found.append(x.numel() // x.shape[-1])
        return plain(x, weight, bias)

    monkeypatch.setattr(products, "_product", lambda: None if plain is None else noted)
    return found


def linear(n: int, bias: bool = True) -> torch.nn.Linear:
    torch.manual_seed(n)
    return torch.nn.Linear(WIDE, n, bias=bias).requires_grad_(False)


def conv(n: int) -> Conv1D:
    torch.manual_seed(n)
    made = Conv1D(n, WIDE).requires_grad_(False)
    made.bias.uniform_(-1, 1)
    return made


def behind(module: torch.nn.Module, tiny, x: torch.Tensor) -> torch.Tensor:
    with session(tiny.hf, tiny.anatomy), by_onednn(tiny.hf):
        return module(x)


@needs_onednn
@pytest.mark.parametrize("shape", [(ROWS, WIDE), (3, 7, WIDE), (1, 512, WIDE)])
@pytest.mark.parametrize("module", [linear(WIDE), linear(320, bias=False), conv(WIDE), conv(770)])
def test_products_are_the_modules_own(tiny, taken, module, shape):
    x = torch.randn(*shape)
    found = behind(module, tiny, x)
    assert len(taken) == 1
    assert found.shape == module(x).shape
    wanted = module.to(torch.float64)(x.double())
    module.to(torch.float32)
    assert float((found - wanted).abs().max()) < ROUNDING


def strided_bias() -> torch.nn.Linear:
    made = linear(WIDE)
    made.bias = torch.nn.Parameter(torch.randn(WIDE, 2)[:, 0], requires_grad=False)
    return made


def strided_weight() -> torch.nn.Linear:
    made = linear(WIDE)
    made.weight = torch.nn.Parameter(torch.randn(WIDE, 2 * WIDE)[:, ::2], requires_grad=False)
    return made


@pytest.mark.parametrize(
    ("module", "x"),
    [
        (linear(WIDE), torch.randn(ROWS - 1, WIDE)),
        (linear(8), torch.randn(ROWS, WIDE)),
        (linear(WIDE).double(), torch.randn(ROWS, WIDE).double()),
        (linear(WIDE).bfloat16(), torch.randn(ROWS, WIDE).bfloat16()),
        (linear(WIDE), torch.randn(WIDE, ROWS).T),
        (strided_bias(), torch.randn(ROWS, WIDE)),
        (strided_weight(), torch.randn(ROWS, WIDE)),
    ],
)
def test_what_is_small_or_lies_otherwise_is_left_to_the_module(tiny, taken, module, x):
    assert torch.equal(behind(module, tiny, x), module(x))
    assert not taken


@needs_onednn
def test_they_are_taken_in_the_walk_and_nowhere_else(wide, taken):
    edit = "zero L*.z.h*@{-1,-2}"
    walked = mt.sweep(wide, PROMPT, edit, metrics="kl", verify=0)
    assert taken
    assert len(PROMPT.text.split()) not in taken  # the clean run
    in_walk = [*taken]
    taken.clear()
    slow = mt.sweep(wide, PROMPT, edit, metrics="kl", engine="reference")
    wide.run(PROMPT, edits=[edit.replace("*", ":")])
    assert not taken
    assert float(abs(walked.data["kl"] - slow.data["kl"]).max()) < ROUNDING
    mt.sweep(wide, PROMPT, edit, metrics="kl", verify="all")
    assert taken == in_walk


def test_torchs_own_switch_turns_them_off(wide, taken):
    torch._C._set_mkldnn_enabled(False)
    try:
        mt.sweep(wide, PROMPT, "zero L*.z.h*@{-1,-2}", metrics="kl", verify=0)
    finally:
        torch._C._set_mkldnn_enabled(True)
    assert not taken


@pytest.mark.parametrize("answer", [AttributeError(), RuntimeError(), torch.zeros(16, 3)])
def test_an_operator_that_is_missing_or_wrong_is_not_used(monkeypatch, answer):
    class Operators:
        @staticmethod
        def _linear_pointwise(*given):
            if isinstance(answer, Exception):
                raise answer
            return answer

    monkeypatch.setattr(torch.ops, "mkldnn", Operators, raising=False)
    assert products._product.__wrapped__() is None


@needs_onednn
def test_it_ends_with_its_block_and_with_its_session(tiny, taken):
    module, x = linear(WIDE), torch.randn(ROWS, WIDE)
    before = _get_current_function_mode_stack()
    with pytest.raises(KeyboardInterrupt), session(tiny.hf, tiny.anatomy), by_onednn(tiny.hf):
        raise KeyboardInterrupt
    assert _get_current_function_mode_stack() == before
    with session(tiny.hf, tiny.anatomy) as own, own.block():
        mode = products._Products(own, products._product())
        mode.open()
    try:  # one that an interrupt has left behind
        module(x)
        assert not taken
    finally:
        mode.close()
    assert _get_current_function_mode_stack() == before
