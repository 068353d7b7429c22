"""A stream that is rounded otherwise: by how much, where, and what it is for."""

from __future__ import annotations

import pytest
import torch

from microtome.passes.hooks import hooked
from microtome.passes.shaking import shaking

BFLOAT16 = torch.finfo(torch.bfloat16).eps


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_each_value_moves_to_a_neighbour_or_stays(tiny, dtype):
    eps = torch.finfo(dtype).eps
    [visit, *_] = shaking(tiny.anatomy, eps, seed=0)
    values = torch.randn(64, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    values[0, :3] = torch.tensor([0.0, torch.inf, -torch.inf])
    shaken = values.clone()
    visit.act(shaken)
    up, down = (torch.nextafter(values, torch.tensor(to, dtype=dtype)) for to in (1e4, -1e4))
    moved = shaken != values
    assert ((shaken == up) | (shaken == down))[moved].all()
    assert 0.1 < moved.double().mean() < 0.6
    assert torch.equal(shaken[0, :3], values[0, :3])
    assert abs((shaken.double() - values.double())[1:].mean()) < eps / 20


def test_each_block_is_shaken_and_a_seed_says_how(tiny):
    ids = torch.tensor([[5, 6, 7]])

    def logits(seed):
        visits = [] if seed is None else shaking(tiny.anatomy, BFLOAT16, seed)
        with torch.no_grad(), hooked(tiny.hf, tiny.anatomy, visits) as made:
            found = tiny.hf(ids).logits
        assert len(visits) in (0, tiny.anatomy.dims.n_layers)
        assert all(made[visit] == 1 for visit in visits)
        return found

    assert torch.equal(logits(0), logits(0))
    assert not torch.equal(logits(0), logits(1))
    off = (logits(0) - logits(None)).norm() / logits(None).norm()
    assert 0 < off < 8 * BFLOAT16


def test_float64_moves_by_its_own_unit(tiny64):
    eps = torch.finfo(torch.float64).eps
    visit = next(
        one for one in shaking(tiny64.anatomy, eps, 0) if one.place[0].name == "resid_post"
    )
    values = torch.randn(64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    shaken = values.clone()
    visit.act(shaken)
    assert 0 < ((shaken - values) / values).abs().max() < 2 * eps


@pytest.mark.parametrize("family", ["gpt_neo", "gemma", "gpt2"])
def test_what_is_multiplied_in_float32_is_shaken_as_often_as_it_is_rounded(of_family, family):
    anatomy, eps = of_family(family).anatomy, torch.finfo(torch.float32).eps
    visits = shaking(anatomy, eps, seed=0)
    assert [str(one.place[0]) for one in visits] == ["q", "k", "resid_post"] * anatomy.dims.n_layers
    values = torch.ones(64, 64, dtype=torch.float64)
    moved = []
    for visit in visits[:3]:
        shaken = values.clone()
        visit.act(shaken)
        moved.append(float((shaken - values).abs().max()) / eps)
    wide = anatomy.dims.d_head**0.5 / 2
    assert moved == pytest.approx([wide, wide, 1 / 2], rel=0.01)


def test_products_in_float32_excuse_nothing_in_half_precision(of_family):
    """They are rounded less there than all that is around them."""
    anatomy = of_family("gpt_neo").anatomy
    assert {one.place[0].name for one in shaking(anatomy, BFLOAT16, seed=0)} == {"resid_post"}
