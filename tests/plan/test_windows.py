"""Attention in a window: what lies outside of it does not exist, and is no cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import AddressError, EditError, SweepError
from oracles import families as by_hand

CAT = mt.Prompt(
    "The cat sat on the mat, and", donor="The dog sat on the cat, and", target=" cat", contrast=" a"
)
LENGTH = 8
WINDOWED = ("gpt_neo", "mistral", "qwen2", "phi3", "gemma2", "gemma3_text", "modernbert")
"""Of the oracle's models, those with a window in some layers or in all."""


@pytest.fixture(scope="module", params=[name for name in WINDOWED if name in by_hand.FAMILIES])
def model(request, of_family):
    return of_family(request.param)


@pytest.fixture(scope="module")
def narrow(of_family):
    """A window of four tokens in every layer."""
    return of_family("mistral")


def test_the_cells_of_a_map_are_the_weights_that_the_model_has(model):
    dims = model.anatomy.dims
    assert any(reach is not None and reach < LENGTH for reach in dims.reaches)
    weights = model.run(CAT, keep=["L:.pattern"])["L:.pattern"].values[0]
    assert weights.shape[-1] == LENGTH
    effects = mt.sweep(model, CAT, "scale(0.5) L*.pattern.h*@*,*", metrics="logit", verify=2)
    cells = np.isfinite(effects.data["logit"].values[0])
    assert (cells == (weights > 0)).all()
    assert "sliding window" in effects.provenance["predicted"]["why_absent"]


def test_a_knockout_leaves_each_token_a_key_in_its_window(narrow):
    effects = mt.sweep(narrow, CAT, "knockout L*.pattern.h*@-1,*", metrics="logit")
    there = np.isfinite(effects.data["logit"].values[0]).all((0, 1))
    assert np.flatnonzero(there).tolist() == [4, 5, 6, 7]
    for engine in ("walk", "reference"):
        with pytest.raises(SweepError, match=r"No cell.*window.*leave each token a key"):
            mt.sweep(
                narrow,
                CAT,
                "knockout L*.pattern.h*@-1,{4,5,6,7}",
                metrics="logit",
                engine=engine,
            )
    with pytest.raises(EditError, match=r"nothing that the token at position 7 attends to is left"):
        narrow.run(CAT, edits="knockout L0.pattern.h0@-1,4:")


@pytest.mark.parametrize("edit", ["replace(0.25)", "add(0.25)", "knockout", "zero"])
def test_an_address_outside_of_the_window_names_nothing(narrow, edit):
    with pytest.raises(AddressError, match=r"window of 4 tokens.*do not exist"):
        narrow.run(CAT, edits=f"{edit} L0.pattern.h0@-1,0")


def test_an_edit_that_makes_attention_does_not_reach_beyond(narrow):
    with pytest.raises(EditError, match=r"more than 3 away.*not exist in layer 1"):
        narrow.run(CAT, edits="replace(0.25) L1.pattern.h0@-1")
    run = narrow.run(CAT, edits="zero L1.pattern.h0@-1", keep=["L1.pattern.h0@-1"])
    assert not run["L1.pattern.h0@-1"].values.any()


def test_a_layer_without_a_window_sees_all(of_family):
    model = of_family("qwen2")
    assert model.anatomy.dims.reaches == (None, 3)
    effects = mt.sweep(model, CAT, "knockout L*.pattern.h0@-1,0", metrics="logit")
    assert np.isfinite(effects.data["logit"].values[0]).tolist() == [True, False]


def test_weights_patched_by_words_stay_where_weights_can_be(narrow):
    far = mt.Prompt(
        CAT.text, donor="The dog and the mat and the cat sat on the mat, and", target=" a"
    )
    effects = mt.sweep(narrow, far, "patch(align='words') L0.pattern.h0@*,*", metrics="logit")
    assert effects.n_cells > 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("engine", ["walk", "reference"])
def test_a_knockout_of_nearly_all_that_a_token_attends_to(tokenizer, dtype, engine):
    """What is left would be nothing in half precision; it is shared out before it is rounded."""
    hf = by_hand.make("llama", len(tokenizer), torch.float32)
    with torch.no_grad():
        hf.model.layers[0].self_attn.q_proj.weight.mul_(40)
    model = mt.load(hf.to(dtype), tokenizer=tokenizer)
    weights = model.run(CAT, keep=["L0.pattern"])["L0.pattern"].values[0, :, -1]
    head, top = np.unravel_index(int(weights.argmax()), weights.shape)
    assert weights.max() == 1
    edit = f"knockout L0.pattern.h{head}@-1,{top}"
    run = model.run(CAT, edits=edit, keep=[f"L0.pattern.h{head}@-1"])
    row = run[f"L0.pattern.h{head}@-1"].values.ravel()
    assert np.isfinite(row).all()
    assert row[top] == 0
    assert row.sum() == pytest.approx(1, abs=0.01)
    effects = mt.sweep(model, CAT, f"knockout L*.pattern.h*@-1,{top}", metrics="kl", engine=engine)
    assert np.isfinite(effects.data["kl"]).all()
