"""The activation function in one pass over memory is the model's own, and only in the walk."""

from __future__ import annotations

import pytest
import torch
from transformers.activations import NewGELUActivation

import microtome as mt
from microtome.passes import activations
from microtome.passes.activations import IN_ONE, in_one_pass
from microtome.passes.hooks import quiet
from microtome.passes.session import session

ROUNDING = {torch.float32: 1e-6, torch.float64: 1e-14}
PROMPT = mt.Prompt("When Mary and John went to", donor="When John and Mary gave to", target=" Mary")


def values(dtype: torch.dtype) -> torch.Tensor:
    edges = torch.tensor([0.0, -0.0, 1e-30, -9.0, 9.0, 1e4, -1e4, torch.inf, -torch.inf, torch.nan])
    return torch.cat([torch.linspace(-6, 6, 5_001), edges]).to(dtype).view(1, -1)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("kind", IN_ONE)
def test_it_is_the_modules_own_function(kind, dtype):
    x, rounding = values(dtype), ROUNDING[dtype]
    close = {"rtol": rounding, "atol": rounding, "equal_nan": True}
    torch.testing.assert_close(IN_ONE[kind](x), kind()(x), **close)


@pytest.fixture
def counted(monkeypatch):
    """How often the function was taken in one pass, and on what."""
    met, plain = [], IN_ONE[NewGELUActivation]

    def noted(x):
        met.append(x.shape)
        return plain(x)

    monkeypatch.setattr(activations, "IN_ONE", {NewGELUActivation: noted})
    return met


def test_it_is_taken_in_the_walk_and_nowhere_else(tiny64, counted):
    mt.sweep(tiny64, PROMPT, "zero L0.z.h0", metrics="kl", verify=0)
    assert len(counted) == tiny64.anatomy.dims.n_layers  # the one tile; not the clean run
    counted.clear()
    mt.sweep(tiny64, PROMPT, "zero L0.z.h0", metrics="kl", engine="reference")
    tiny64.run(PROMPT, edits=["zero L0.z.h0"])
    assert not counted


def test_half_precision_is_the_modules_own_to_the_bit(make_gpt2, tokenizer, counted):
    model = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    mt.sweep(model, PROMPT, "zero L*.z.h*", metrics="kl")
    assert not counted


def test_modules_are_as_before_after_it(tiny):
    act = tiny.hf.transformer.h[0].mlp.act
    x = values(torch.float32)
    before = act(x)
    with session(tiny.hf, tiny.anatomy), quiet(tiny.hf):
        with in_one_pass(tiny.hf):
            inside = act(x)
        after = act(x)
    assert torch.equal(before.nan_to_num(), after.nan_to_num())
    assert torch.allclose(inside, before, atol=1e-6, equal_nan=True)
    assert not act._forward_hooks
    assert not act._forward_pre_hooks
