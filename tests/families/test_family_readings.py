"""The readings, in every family.

The lens: a state is what the model itself says where it leaves the last block. The oracle is the
model: in a run with hooks written by hand, the state takes the place of what leaves the last block,
and the model finishes. Direct logit attribution: the shares sum to the model's own logit.
"""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special

import microtome as mt
from oracles import families as by_hand
from oracles.families import ENCODERS, FAMILIES, UNLIKE, Change, turn

CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
EXACT = 1e-11
CAPS = {"gemma2": 3.0}
"""Family → the soft cap of its logits."""


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


@pytest.fixture(scope="module")
def encoded(model):
    return model.encode(CAT)[0]


def finished(model, hand, encoded, state: np.ndarray) -> np.ndarray:
    """What the model says ``[pos, vocab]`` where this leaves its last block."""
    whole = [list(range(size)) for size in state.shape]
    change = Change("resid_post", hand.layers - 1, whole, lambda x: state)
    return by_hand.run(model.hf, hand, encoded.tokens.ids, [change]).logits.numpy()


def check(found, logits: np.ndarray, output: np.ndarray, encoded, gap, site: str) -> None:
    """Numbers of some states against numpy's of the oracle's logits."""
    logprobs = scipy.special.log_softmax(logits, axis=-1)
    own = scipy.special.log_softmax(output, axis=-1)
    probs = np.exp(logprobs)
    wanted = {
        "prob": probs[:, encoded.target],
        "prob(contrast)": probs[:, encoded.contrast],
        "rank": (logits > logits[:, [encoded.target]]).sum(-1) + 1,
        "kl": (np.exp(own) * (own - logprobs)).sum(-1).clip(0),
        "entropy": -(probs * logprobs).sum(-1),
    }
    for metric, values in wanted.items():
        off = np.abs(found[metric].values - values).max()
        assert gap("lens", site, off) <= 1e-9, (site, metric)
    best = np.argsort(-logits, axis=-1, kind="stable")[:, :3]
    np.testing.assert_array_equal(found["top_id"].values, best)
    np.testing.assert_allclose(
        found["top_prob"].values, np.take_along_axis(probs, best, -1), atol=EXACT
    )


def test_every_state_is_what_the_model_makes_of_it_at_its_end(model, hand, encoded, gap):
    seen = by_hand.run(model.hf, hand, encoded.tokens.ids)
    output = seen.logits.numpy()
    for site, layers in (("resid_post", (0, hand.layers - 1)), ("mlp_out", (1,))):
        found = mt.lens(model, CAT, f"L*.{site}@*", top=3).data.isel(prompt=0)
        for layer in layers:
            logits = finished(model, hand, encoded, seen.seen[site, layer])
            check(found.sel(layer=layer), logits, output, encoded, gap, site)


def test_the_last_state_is_the_models_output_to_the_last_bit(model):
    found = mt.lens(model, CAT, top=5)
    top = model.run(CAT).top(5)
    last = found.data.isel(prompt=0, layer=-1, pos=-1)
    assert last["top_id"].values.tolist() == top["id"].tolist()
    assert np.abs(last["top_prob"].values - top["prob"].values).max() <= 1e-15
    assert not found.data["kl"].isel(layer=-1).values.any()


@pytest.mark.parametrize("name", UNLIKE, indirect=True)
def test_a_head_and_a_run_under_an_edit_are_read_too(model, hand, encoded, gap):
    tokens = list(range(len(encoded.tokens)))
    whole = [tokens, list(range(32))]
    edit = Change("mlp_out", 1, whole, lambda x: 0 * x)
    seen = by_hand.run(model.hf, hand, encoded.tokens.ids, [edit])
    found = mt.lens(model, CAT, "L1:.resid_post@*", top=3, edits="zero L1.mlp_out")
    for layer in (1, 2):
        logits = finished(model, hand, encoded, seen.seen["resid_post", layer])
        own = found.data.isel(prompt=0).sel(layer=layer)
        check(own, logits, seen.logits.numpy(), encoded, gap, "resid_post")
    kept = model.run(CAT, keep=["L1.head_out"])["L1.head_out"].values[0]
    output = model.run(CAT).logits[0].numpy()
    heads = mt.lens(model, CAT, "L1.head_out.h{0,2}@{1,-1}", top=3).data.isel(prompt=0)
    for head in (0, 2):
        logits = finished(model, hand, encoded, kept[:, head])[[1, -1]]
        check(heads.sel(head=head), logits, output[[1, -1]], encoded, gap, "head_out")


def uncapped(name: str, logits: np.ndarray) -> np.ndarray:
    return CAPS[name] * np.arctanh(logits / CAPS[name]) if name in CAPS else logits


def test_the_shares_sum_to_the_models_logit(model, name, hand, encoded, gap):
    metric = ("logit_diff", "logit(contrast)@3")[turn(name) % 2]
    found = mt.attribute_logits(model, CAT, metric, sources=True)
    logits = uncapped(name, by_hand.run(model.hf, hand, encoded.tokens.ids).logits.numpy())
    target, contrast = encoded.target, encoded.contrast
    wanted = logits[-1, target] - logits[-1, contrast] if "diff" in metric else logits[3, contrast]
    rounding = 1e-9 if name not in CAPS else 1e-8  # what the arctanh leaves of a capped logit
    assert gap("shares", "logits", abs(float(found.total[0]) - wanted)) <= rounding
    assert abs(float(found.data["logit"][0]) - wanted) <= rounding
    own = found.data.isel(prompt=0)
    apart = np.abs(own["source"].sum("pos") - own["head_out"])
    assert gap("shares", "pattern", float(apart.max())) <= hand.rounding
    for part in ("head_out", "mlp_out"):
        assert bool((np.abs(own[part]) > 0).all()), part
    if "@3" in metric and name not in ENCODERS:
        assert not own["source"].isel(pos=slice(4, None)).values.any()
