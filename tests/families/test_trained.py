"""A trained Llama with grouped heads: its maps are those of hand-written hooks, cell by cell."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import microtome as mt
from oracles import families as by_hand
from oracles.families import Change

STORY = "Once upon a time, there was a little girl named Lily. One day, Lily"
SHAPE = (8, 4, 8)
MAPS = {
    # address: site, units (None: all together), positions starred
    "L*.z.h*": ("z", 8, 1),
    "L*.k.h*": ("k", 4, 1),
    "L*.v.h*": ("v", 4, 1),
    "L*.pattern.h*": ("pattern", 8, 1),
    "L*.mlp_post.n*@-1": ("mlp_post", 172, 17),
    "L*.resid_post@*": ("resid_post", None, 3),
}


@pytest.fixture(scope="module")
def stories(real_models):
    folder = real_models / "stories260K"
    if not folder.is_dir():
        pytest.skip("../shared/models/stories260K is not there")
    # Its attention written out, so that the oracle can get at the weights.
    return mt.load(folder, dtype="float64", device="cpu", attn_implementation="eager")


@pytest.fixture(scope="module")
def prompt(stories):
    ids = stories.encode(STORY)[0].tokens.ids
    with torch.no_grad():
        order = stories.hf(torch.tensor([ids])).logits[0, -1].argsort(descending=True).tolist()
    first, second = (
        stories.tokenizer.convert_ids_to_tokens(i).replace("▁", " ") for i in order[:2]
    )
    return mt.Prompt(STORY, target=first, contrast=second)


def test_it_is_what_it_should_be(stories):
    dims = stories.anatomy.dims
    assert (dims.n_layers, dims.n_heads, dims.n_kv_heads, dims.d_head) == (5, *SHAPE[:2], SHAPE[2])
    assert sum(weight.numel() for weight in stories.hf.parameters()) < 300_000


@pytest.mark.parametrize("address", MAPS)
def test_maps_agree_with_hand_written_hooks(stories, prompt, address):
    site, units, every = MAPS[address]
    [one] = stories.encode(prompt)
    length = len(one.tokens)
    effects = mt.sweep(stories, prompt, f"zero {address}", metrics=["logit_diff"])
    found = effects.data["logit_diff"].isel(prompt=0)
    assert found.shape == (5, length if units is None else units)
    hand = by_hand.FAMILIES["llama"]
    clean = by_hand.run(stories.hf, hand, one.tokens.ids, shape=SHAPE)
    seen = clean.seen
    for number, (layer, unit) in enumerate(np.ndindex(found.shape)):
        if number % every:
            continue
        values = seen[site, layer]
        positions = [length - 1] if "@-1" in address else list(range(length))
        chosen = [unit]
        if units is None:
            positions, chosen = [unit], list(range(values.shape[1]))
        index = [positions, chosen, *(list(range(n)) for n in values.shape[2:])]
        if site == "pattern":
            index = [[unit], *(list(range(n)) for n in values.shape[1:])]
        change = Change(site, layer, index, lambda x: 0 * x)
        logits = by_hand.run(stories.hf, hand, one.tokens.ids, [change], SHAPE).logits[-1]
        wanted = float(logits[one.target] - logits[one.contrast])
        assert math.isclose(float(found[layer, unit]), wanted, abs_tol=1e-9), (layer, unit)
