"""Padded = unpadded: prompts of different lengths, each run by itself, are the rows of a batch.

The batch is Hugging Face's: padded on either side, with a mask and positions made here by hand.
microtome never pads.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from oracles import families as by_hand
from oracles.families import FAMILIES, turn

TEXTS = ("The cat sat on the mat, and", "When Mary and John went")
LENGTHS = (8, 5)
MASKED_ROWS = {"gemma2": ("right", "left"), "bloom": ("left",)}
"""Where Hugging Face's own padding gives NaN in float64, at real tokens too.

A row of padding that sees nothing is a softmax over float64's least number, taken in float32, where
that is −∞. In float32 the same batch is exact.
"""


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def padded(hf, hand, texts, side, at=()):
    """The logits of each text's tokens, out of one batch; head 1 of L1.z is zero at some places."""
    longest = max(map(len, texts))
    mask = torch.zeros(len(texts), longest, dtype=torch.long)
    ids = torch.zeros_like(mask)
    starts = [longest - len(own) if side == "left" else 0 for own in texts]
    for row, (start, own) in enumerate(zip(starts, texts, strict=True)):
        ids[row, start : start + len(own)] = torch.tensor(own)
        mask[row, start : start + len(own)] = 1
    positions = (mask.cumsum(-1) - 1).clamp(min=0) + hand.first_position
    heads = by_hand.dimensions(hf, hand)
    columns = torch.from_numpy(by_hand.plain(*heads)[1])

    def zero(module, args):
        x = args[0].clone()
        for row, position in at:
            x[row, starts[row] + position, columns] = 0
        return (x, *args[1:])

    handle = hf.get_submodule(f"{hand.blocks}.1.{hand.z}").register_forward_pre_hook(zero)
    try:
        with torch.no_grad():
            logits = hf(ids, attention_mask=mask, position_ids=positions).logits
    finally:
        handle.remove()
    return [
        logits[row, start : start + len(own)]
        for row, (start, own) in enumerate(zip(starts, texts, strict=True))
    ]


@pytest.mark.parametrize("side", ["left", "right"])
def test_every_prompt_is_its_row_of_a_padded_batch(model, name, side, tokenizer):
    hand = FAMILIES[name]
    rounding = hand.rounding
    if side in MASKED_ROWS.get(name, ()):
        model = mt.load(by_hand.make(name, len(tokenizer), torch.float32), tokenizer=tokenizer)
        rounding = 1e-4
    ids = [one.tokens.ids for one in model.encode(TEXTS)]
    assert tuple(map(len, ids)) == LENGTHS
    clean = model.run(TEXTS)
    edited = model.run(TEXTS, edits=["zero L1.z.h1@{1,-1}"])
    changed = [(row, place) for row, length in enumerate(LENGTHS) for place in (1, length - 1)]
    for run, at in ((clean, ()), (edited, changed)):
        for own, wanted in zip(run.logits, padded(model.hf, hand, ids, side, at), strict=True):
            assert float((own[: len(wanted)] - wanted).abs().max()) <= rounding
            assert bool(own[len(wanted) :].isnan().all())
    assert not torch.equal(clean.logits[1, :5], edited.logits[1, :5])


MAPS = ("zero L*.z.h*@*", "patch L*.resid_post@*", "scale(0.5) L*.v@1")


def test_a_sweep_of_several_lengths_is_that_of_each_prompt(model, name):
    prompts = [
        mt.Prompt(text, donor=donor, target=" cat", contrast=" dog")
        for text, donor in zip(TEXTS, ("The dog sat on the cat, and", "When John and Mary went"),
                               strict=True)
    ]  # fmt: skip
    edit = MAPS[turn(name) % len(MAPS)]
    together = mt.sweep(model, prompts, edit, metrics=["logit_diff"], verify=0).data
    for row, prompt in enumerate(prompts):
        alone = mt.sweep(model, prompt, edit, metrics=["logit_diff"], verify=0).data
        own = together["logit_diff"].isel(prompt=row).values
        wanted = alone["logit_diff"].isel(prompt=0).values
        own = own[..., : LENGTHS[row]] if edit.endswith("@*") else own
        assert own.shape == wanted.shape
        assert np.abs(own - wanted).max() <= FAMILIES[name].rounding


@pytest.mark.parametrize("family", ["gpt2", "llama", "bloom"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_a_mask_of_nothing_but_ones_changes_nothing(family, side, tokenizer):
    """The oracle itself: prompts of one length, so nothing is padded."""
    hf = by_hand.make(family, len(tokenizer))
    texts = [mt.load(hf, tokenizer=tokenizer).encode(TEXTS[0])[0].tokens.ids] * 2
    hand = FAMILIES[family]
    wanted = by_hand.run(hf, hand, texts[0]).logits
    for row in padded(hf, hand, texts, side):
        assert torch.allclose(row, wanted, atol=1e-9)
