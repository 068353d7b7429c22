"""A vector by layer, a direction that is projected out, and one that is held: closed forms."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import microtome as mt
from microtome.edits import Context
from microtome.edits.by_layer import ByLayer
from microtome.errors import EditError
from microtome.language.addresses import parse
from microtome.language.sites import Dimensions
from microtome.prompts.resolve import regions
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(
    n_layers=2, n_heads=4, n_kv_heads=2, d_model=8, d_head=2, d_mlp=5, d_vocab=6, n_positions=16
)
TOKENS = Tokens.of_texts("a", " b", " c", " d", " e")
ADDRESSES = ("L0.resid_post", "L1.z", "L0.z.h2", "L1.mlp_post.n::2@1:", "L1.resid_post.d3@-1")
CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")


def region_of(at):
    return regions(parse(at), DIMS, TOKENS)[0]


def changed(edit, dtype=torch.float64, scale=1.0):
    """Values before and after, ``[cell, pos, features]``."""
    region = region_of(str(edit.address))
    edit.check(region)
    generator = torch.Generator().manual_seed(0)
    before = (torch.randn(3, *region.shape, generator=generator) * scale).to(dtype)
    kept = before.clone()
    after = edit.change(before, Context(region.site.axes, ("",) * 3, layer=region.layer))
    assert torch.equal(before, kept)
    assert (after.shape, after.dtype) == (before.shape, dtype)
    return (x.double().numpy().reshape(3, x.shape[1], -1) for x in (before, after))


def direction_of(at):
    region = region_of(at)
    return np.random.default_rng(1).normal(size=region.shape[1:]) * 7


@pytest.mark.parametrize("at", ADDRESSES)
@pytest.mark.parametrize("factor", [0.0, 1.0, -1.0, 0.25])
def test_project_leaves_a_share_of_the_component_and_all_that_is_across(at, factor):
    direction = direction_of(at)
    before, after = changed(mt.project(at, direction, factor))
    unit = direction.ravel() / np.linalg.norm(direction)
    np.testing.assert_allclose(after @ unit, factor * (before @ unit), atol=1e-12)
    across = np.eye(len(unit)) - np.outer(unit, unit)
    np.testing.assert_allclose(after @ across, before @ across, atol=1e-12)


@pytest.mark.parametrize("at", ADDRESSES)
@pytest.mark.parametrize("bounds", [(-0.2, 0.3), (None, 0.1), (0.5, None), (0.7, 0.7)])
def test_clamp_holds_the_component_and_leaves_the_rest_to_the_bit(at, bounds):
    low, high = bounds
    direction = direction_of(at)
    before, after = changed(mt.clamp(at, direction, low, high))
    unit = direction.ravel() / np.linalg.norm(direction)
    held = np.clip(before @ unit, *(b if b is not None else s * np.inf
                                    for b, s in zip(bounds, (-1, 1), strict=True)))  # fmt: skip
    np.testing.assert_allclose(after @ unit, held, atol=1e-12)
    across = np.eye(len(unit)) - np.outer(unit, unit)
    np.testing.assert_allclose(after @ across, before @ across, atol=1e-12)
    inside = np.isclose(held, before @ unit, rtol=0, atol=0)
    np.testing.assert_array_equal(after[inside], before[inside])


@pytest.mark.parametrize("make", [mt.project, lambda *a: mt.clamp(*a, 0.1, 0.1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(make, dtype):
    edit = make("L0.resid_post", direction_of("L0.resid_post"))
    before, after = changed(edit, dtype)
    unit = edit.vector.array / np.linalg.norm(edit.vector.array)
    wanted = before @ unit if edit.name == "clamp" else 0 * (before @ unit)
    wanted = 0 * wanted + (0.1 if edit.name == "clamp" else 0.0)
    eps = torch.finfo(dtype).eps
    assert np.abs(after @ unit - wanted).max() <= 4 * eps * np.abs(before).max()


def test_a_direction_of_any_length_is_the_same_one():
    direction = direction_of("L0.resid_post")
    for scale in (1e-200, 1e200, -1):
        _, one = changed(mt.project("L0.resid_post", direction))
        _, other = changed(mt.project("L0.resid_post", direction * scale))
        np.testing.assert_allclose(one, other, atol=1e-13)


def test_add_takes_a_factor_and_each_layers_own_vector():
    vectors = {0: np.arange(8.0), np.int64(1): -np.ones(8)}
    for layer, vector in vectors.items():
        edit = mt.add(f"L{layer}.resid_post", vectors, factor=torch.tensor(0.5))
        before, after = changed(edit)
        np.testing.assert_allclose(after, before + 0.5 * vector, atol=1e-15)
    assert edit.vector == ByLayer.of(vectors)
    with pytest.raises(
        EditError, match="there is no vector for layer 1; there are some for layers 0"
    ):
        mt.add("L1.resid_post", {0: np.ones(8)}).check(region_of("L1.resid_post"))
    with pytest.raises(EditError, match="no vector for no layer"):
        mt.add("embed", {0: np.ones(8)}).check(region_of("embed"))


def test_an_array_with_names_is_not_taken_for_another_of_its_shape():
    square = np.arange(25.0).reshape(1, 5, 5)
    square = xr.DataArray(square, dims=("head", "q_pos", "k_pos"))
    region = region_of("L0.pattern.h0@:,0")
    column = square.isel(k_pos=[0])
    mt.replace("L0.pattern.h0@:,0", column).check(region, causal=False)
    whole = region_of("L0.pattern.h0")
    mt.replace("L0.pattern.h0", square).check(whole, causal=False)
    mt.replace("L0.pattern.h0", square.values.swapaxes(1, 2)).check(whole, causal=False)
    turned = mt.replace("L0.pattern.h0", square.transpose("head", "k_pos", "q_pos"))
    words = r"axes head, k_pos, q_pos, and those here are head, q_pos, k_pos, in this order.*values"
    with pytest.raises(EditError, match=words):
        turned.check(whole, causal=False)
    layers = xr.DataArray(np.ones((5, 8)), dims=("layer", "d_model"))
    with pytest.raises(EditError, match="axes layer, d_model, and those here are pos, d_model"):
        mt.add("L0.resid_post", layers).check(region_of("L0.resid_post"))
    across = xr.DataArray(np.ones((2, 2)), dims=("d_head", "head"))
    with pytest.raises(EditError, match="axes d_head, head, and those here are pos, head, d_head"):
        mt.project("L0.z.h:2", across).check(region_of("L0.z.h:2"))
    for names in (None, ("d",), ("feature",)):
        vector = xr.DataArray(np.ones(8), dims=names)
        mt.add("L0.resid_post", vector).check(region_of("L0.resid_post"))


REFUSED = {
    "a number": (lambda: mt.project("L0.resid_post", 2.0), "direction of one position"),
    "another shape": (lambda: mt.project("L0.resid_post", np.ones(5)), r"shape \[5\].*is \[8\]"),
    "no direction": (lambda: mt.project("L0.resid_post", np.zeros(8)), "is no direction"),
    "no bound": (lambda: mt.clamp("L0.resid_post", np.ones(8)), "needs a bound"),
    "bounds crossed": (lambda: mt.clamp("L0.resid_post", np.ones(8), 2, 1), "above its high"),
    "no layer": (lambda: mt.add("L0.resid_post", {"a": [1.0]}), "by the layer's number, from 0"),
    "negative": (lambda: mt.SteeringVector({-1: np.ones(8)}), "by the layer's number, from 0"),
    "no mapping": (lambda: ByLayer.of([np.ones(8)]), "are a mapping.*and not a list"),
    "no layers": (lambda: mt.add("L0.resid_post", {}), "mapping of layers to vectors is empty"),
    "masked": (
        lambda: mt.add("L0.resid_post", np.ma.masked_array(np.ones(8), np.eye(8)[0] > 0)),
        "Expected a finite number or an array of them, not masked_array",
    ),
    "complex": (
        lambda: mt.add("L0.resid_post", torch.ones(8, dtype=torch.complex64)),
        "not a tensor of torch.complex64",
    ),
    "sparse": (lambda: mt.add("L0.resid_post", torch.eye(8).to_sparse()), "torch.sparse_coo"),
    "on meta": (lambda: mt.add("L0.resid_post", torch.ones(8, device="meta")), "on meta"),
    "infinite": (lambda: mt.clamp("L0.resid_post", np.ones(8), low=np.inf), "clamp's low must be"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_direction_is_refused(case):
    make, why = REFUSED[case]
    with pytest.raises(EditError, match=why):
        make().check(region_of("L0.resid_post"))


D = [round(float(x), 3) for x in np.random.default_rng(2).normal(size=32)]
BY_LAYER = {layer: [x * (layer + 1) for x in D] for layer in range(3)}
EDITS = (
    f"project({D}) L*.resid_post",
    f"project({D}, factor=-1) L*.mlp_out@*",
    f"clamp({D}, 0.2, 0.4) L*.attn_out@-1",
    f"project({D[:8]}) L*.z.h*@*",
    f"clamp({D}, low=3) L:.resid_mid",
    f"add({BY_LAYER}) L*.resid_post@*",
    f"project({BY_LAYER}) L*.resid_pre",
    f"clamp({BY_LAYER}, low=1) L:.resid_post@{{1,3}}",
    f"project({D}) embed",
)


@pytest.mark.parametrize("text", EDITS, ids=lambda text: text.replace(str(D), "d")[:40])
def test_they_walk_as_on_the_reference_path(tiny64, text):
    metrics = ["logit_diff", "kl"]
    walked, slow = (
        mt.sweep(tiny64, CAT, text, metrics=metrics, engine=engine)
        for engine in ("walk", "reference")
    )
    for name in (*metrics, "values_changed", "change_norm"):
        assert float(abs(walked.data[name] - slow.data[name]).max()) < 1e-9, name
    assert float(walked.data["kl"].max()) > 1e-6
    assert str(mt.edit(text)) == str(mt.edit(str(mt.edit(text))))


def test_they_are_hooks_written_by_hand(tiny64):
    """On the module itself, with plain torch."""
    unit = torch.tensor(D, dtype=torch.float64)
    unit = unit / unit.norm()

    def project(module, args, output):
        whole = output if isinstance(output, tuple) else (output,)  # as blocks of 5.2 have it
        stream = whole[0] - (whole[0] @ unit)[..., None] * unit
        return (stream, *whole[1:]) if isinstance(output, tuple) else stream

    handle = tiny64.hf.transformer.h[1].register_forward_hook(project)
    ids = torch.tensor([tiny64.encode(CAT)[0].tokens.ids])
    try:
        with torch.no_grad():
            wanted = tiny64.hf(ids).logits
    finally:
        handle.remove()
    found = tiny64.run(CAT, [mt.project("L1.resid_post", D)]).logits
    assert float((found - wanted).abs().max()) < 1e-11


def test_a_factor_is_an_axis(tiny64):
    effects = mt.sweep(
        tiny64, CAT, mt.add("L*.resid_post", BY_LAYER), metrics="logit_diff",
        over={"factor": [0.0, 1.0, 2.0]},
    )  # fmt: skip
    assert effects.data["logit_diff"].dims == ("prompt", "layer", "factor")
    for layer in range(3):
        alone = tiny64.run(CAT, [mt.add(f"L{layer}.resid_post", BY_LAYER[layer], 2)]).logits[0, -1]
        [one] = tiny64.encode(CAT)
        wanted = float(alone[one.target] - alone[one.contrast])
        found = effects.data["logit_diff"].sel(layer=layer, factor=2.0).item()
        assert found == pytest.approx(wanted, abs=1e-9)


def test_a_vector_for_each_layer_is_none_of_an_edge():
    with pytest.raises(EditError, match="edge, which is between two"):
        mt.add("L0.z.h0 -> L1.q_in.h0", {1: [0.5]})
