"""The anatomy in words says what the model does, family by family."""

from __future__ import annotations

import pytest
import torch

from microtome.language.sites import site
from microtome.model.anatomy import Anatomy
from microtome.model.describe import described
from microtome.passes.hooks import Visit, forward
from oracles import families as by_hand
from oracles.families import FAMILIES

EXPERTS = {"mixtral": "4 experts of 40 neurons", "qwen3_moe": "4 experts of 16 neurons"}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_described_as_it_computes(name):
    hf, hand = by_hand.make(name, 64), FAMILIES[name]
    anatomy = Anatomy.of(hf)
    said = described(anatomy, hf.config)
    heads, keys, width = by_hand.dimensions(hf, hand)
    assert said["family"].startswith(f"{hf.config.model_type}, ")
    assert said["block"].startswith("parallel" if hand.rest is None else "sequential")
    assert said["attention"].startswith(f"{heads} heads of {width}")
    assert (f"{keys} key/value heads" in said["attention"]) == (keys != heads)
    assert said["q, k, v"].startswith("one" if hand.q[0] == hand.k[0] else "a projection each")
    assert said["mlp"].startswith(EXPERTS.get(name, f"{anatomy.dims.d_mlp} neurons"))
    assert ("before attention" in said["norms"]) == normed_before(hf, anatomy, hand)
    assert ("what attention and MLP add" in said["norms"]) == hand.attn_out.endswith("norm")


@pytest.mark.parametrize("name", FAMILIES)
def test_every_site_is_listed_with_its_module(name, of_family):
    model = of_family(name)
    frame = model.sites()
    assert list(frame.index) == [one.name for one in model.anatomy.sites]
    for module in frame["module"].drop("logits"):
        path = module.split(" of ", 1)[1].replace("*", "1")
        assert model.hf.get_submodule(path) is not None
    if "k_head" in frame.index:
        assert frame.loc["k_head", "module"] == frame.loc["k", "module"]
        assert frame.loc["k_head", "sizes"] != frame.loc["k", "sizes"]


def normed_before(hf, anatomy, hand) -> bool:
    """Whether what makes queries reads anything but the residual stream itself."""
    seen: dict[str, torch.Tensor] = {}
    projection = hf.get_submodule(f"{hand.blocks}.1.{hand.q[0]}")
    handle = projection.register_forward_pre_hook(
        lambda module, args: seen.__setitem__("read", args[0].clone())
    )
    keep = Visit((site("resid_pre"), 1), lambda view: seen.__setitem__("stream", view.clone()))
    try:
        forward(hf, anatomy, torch.tensor([[3, 7, 11, 5]]), [keep])
    finally:
        handle.remove()
    return not torch.equal(seen["read"], seen["stream"])
