"""Scaling hidden states by a dictionary layer → factor."""

from __future__ import annotations

import pytest
import torch

import microtome as mt
from microtome.errors import EditError


def test_a_dictionary_becomes_one_edit_per_layer_in_their_order():
    edits = mt.scale({5: 0.9, 2: 0.6})
    assert [str(one) for one in edits] == ["scale(0.6) L2.resid_post", "scale(0.9) L5.resid_post"]
    assert [mt.edit(str(one)) for one in edits] == list(edits)


def test_its_layers_are_scaled_together_in_one_cell(tiny64):
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany")
    factors = {0: 0.6, 2: 3.0}
    hf = tiny64.hf
    handles = [
        hf.transformer.h[layer].register_forward_hook(
            lambda _, __, output, factor=factor: (
                output * factor
                if isinstance(output, torch.Tensor)
                else (output[0] * factor, *output[1:])
            )
        )
        for layer, factor in factors.items()
    ]
    try:
        with torch.no_grad():
            wanted = hf(torch.tensor([tiny64.encode(prompt)[0].tokens.ids])).logits
    finally:
        for handle in handles:
            handle.remove()
    run = tiny64.run(prompt, edits=mt.scale(factors))
    torch.testing.assert_close(run.logits, wanted, rtol=0, atol=1e-9)
    effects = mt.sweep(tiny64, prompt, mt.scale(factors), metrics="prob", progress=False)
    assert effects.n_cells == 1
    target = tiny64.encode(prompt)[0].target
    wanted_prob = float(wanted[0, -1].softmax(-1)[target])
    assert float(effects.data["prob"][0]) == pytest.approx(wanted_prob, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: mt.scale({}), "empty"),
        (lambda: mt.scale({"2": 0.6}), "A layer in scale's dictionary must be a whole number"),
        (lambda: mt.scale({2: float("nan")}), "scale's factor must be a finite number"),
        (lambda: mt.scale({2: 0.6}, 0.5), "leave the other one out"),
        (lambda: mt.scale("L2.resid_post"), "needs a factor"),
    ],
)
def test_wrong_dictionaries(call, words):
    with pytest.raises(EditError, match=words):
        call()
