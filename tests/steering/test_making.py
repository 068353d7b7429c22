"""Steering vectors are what numpy makes of kept states, and what autograd says of a logit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import AddressError, MicrotomeError, TokenError
from oracles.families import ENCODERS, FAMILIES

GOOD = ["Berlin is in Germany", "Rome is in Italy", "Paris is the capital of France"]
BAD = ["The cat sat on", "The dog sat on the mat", "Mary gave a drink to John"]
DECODERS = [name for name in FAMILIES if name not in ENCODERS]


def states(model, texts, site="resid_post", at=-1):
    """``[text, layer, d_model]``, one run each."""
    address = f"L*.{site}"
    return np.stack([
        model.run(text, keep=[address])[address].values[0][:, at] for text in texts
    ])  # fmt: skip


def test_a_mean_difference_is_that_of_the_states(tiny64):
    vector = mt.steering.contrast(tiny64, GOOD, BAD[:2])
    wanted = states(tiny64, GOOD).mean(0) - states(tiny64, BAD[:2]).mean(0)
    np.testing.assert_allclose([vector[n] for n in vector.layers], wanted, atol=1e-12)
    assert (vector.layers, vector.site) == ((0, 1, 2), "resid_post")
    assert vector.about["positive"] == 3
    unit = mt.steering.contrast(tiny64, GOOD, BAD[:2], normalise=True)
    assert list(unit.norms.values()) == pytest.approx([1, 1, 1])
    np.testing.assert_allclose(unit[1] * vector.norms[1], vector[1], atol=1e-12)


def test_states_are_of_any_site_and_place_and_of_several_their_mean(tiny64):
    prompts = [mt.Prompt(text, roles={"first": 0}) for text in GOOD]
    others = [mt.Prompt(text, roles={"first": 0}) for text in BAD]
    vector = mt.steering.contrast(tiny64, prompts, others, site="mlp_out", at="first")
    wanted = states(tiny64, GOOD, "mlp_out", 0) - states(tiny64, BAD, "mlp_out", 0)
    np.testing.assert_allclose([vector[n] for n in range(3)], wanted.mean(0), atol=1e-12)
    [whole] = [mt.steering.of_text(tiny64, GOOD[0], at=":")]
    kept = tiny64.run(GOOD[0], keep=["L*.resid_post"])["L*.resid_post"].values[0]
    np.testing.assert_allclose([whole[n] for n in range(3)], kept.mean(1), atol=1e-12)


@pytest.mark.parametrize("how", ["pca", "pca_centred"])
def test_a_principal_direction_is_the_first_eigenvector(tiny64, how):
    vector = mt.steering.contrast(tiny64, GOOD, BAD, how=how)
    differences = states(tiny64, GOOD) - states(tiny64, BAD)
    for layer in range(3):
        own = differences[:, layer]
        centred = own - own.mean(0) if how == "pca_centred" else own
        wanted = np.linalg.eigh(centred.T @ centred)[1][:, -1]
        assert abs(vector[layer] @ wanted) == pytest.approx(1, abs=1e-9)
        assert np.sign(own @ vector[layer]).sum() > 0  # towards the positive texts
    flipped = mt.steering.contrast(tiny64, BAD, GOOD, how=how)
    assert vector.cosine(flipped).tolist() == pytest.approx([-1, -1, -1])


def test_one_text_or_the_difference_of_two(tiny64):
    alone = mt.steering.of_text(tiny64, GOOD[0])
    np.testing.assert_allclose([alone[n] for n in range(3)], states(tiny64, GOOD)[0], atol=1e-12)
    pair = mt.steering.of_text(tiny64, GOOD[0], without=BAD[0])
    same = mt.steering.contrast(tiny64, GOOD[:1], BAD[:1])
    np.testing.assert_allclose(pair[2], same[2], atol=1e-12)


SCALES = {"cohere": 0.3, "granite": 0.5}
"""What these families multiply logits by, as the tiny models are configured."""


def norm_gradient(model, x, token, without=None):
    """Of a logit (or a difference) at what the final norm reads, by autograd on the module."""
    x = x.clone().requires_grad_()
    logits = model.hf.get_output_embeddings()(model.anatomy.final(model.hf, x))[0, 0]
    logits = logits * SCALES.get(model.anatomy.family.model_type, 1)
    value = logits[token] if without is None else logits[token] - logits[without]
    return torch.autograd.grad(value, x)[0][0, 0].numpy()


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("without", [None, 9])
def test_a_tokens_direction_is_the_gradient_of_its_logit(name, without, of_family):
    """But for the part along the state, which the norm's own scale takes away."""
    model = of_family(name)
    vector = mt.steering.of_token(model, 7, without=without)
    assert vector.layers == tuple(range(FAMILIES[name].layers))
    d_model = model.anatomy.dims.d_model
    x = torch.randn(1, 1, d_model, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    gradient, state = norm_gradient(model, x, 7, without), x[0, 0].numpy()
    centre = abs(vector[0].sum()) < 1e-9 * np.abs(vector[0]).sum()
    state = state - state.mean() if centre else state
    across = vector[0] - state * (state @ vector[0]) / (state @ state)
    across /= np.sqrt((state**2).mean())
    # Its eps is a part of the norm's scale.
    np.testing.assert_allclose(gradient, across, atol=1e-4 * np.abs(gradient).max())
    cosine = gradient @ across / np.linalg.norm(gradient) / np.linalg.norm(across)
    assert cosine == pytest.approx(1, abs=1e-9)


@pytest.mark.parametrize("width", [1, 3, 4, 31, 32])
def test_a_norm_of_any_width_is_read_off(width):
    from microtome.steering.making import _balanced

    found = _balanced(width).numpy()
    assert (found != 0).all()
    assert (found**2).mean() == pytest.approx(1)
    assert width == 1 or found.mean() == pytest.approx(0, abs=1e-12)


def test_along_a_tokens_direction_its_logit_grows(tiny64):
    vector = mt.steering.of_token(tiny64, " France", without=" Germany", normalise=True)
    prompt = mt.Prompt("Berlin is the capital of", target=" France", contrast=" Germany")
    effects = mt.sweep(tiny64, prompt, vector.add(layers="*", at="last"), metrics="logit_diff",
                       over={"factor": [0.0, 4.0]})  # fmt: skip
    last = effects.data["logit_diff"].sel(layer=2).values.ravel()
    assert last[1] > last[0]


REFUSED = {
    "no pairs": (lambda m: mt.steering.contrast(m, GOOD, BAD[:2], how="pca"), "3 positive texts"),
    "a word": (lambda m: mt.steering.contrast(m, GOOD, BAD, how="median"), "must be 'mean'"),
    "alike": (lambda m: mt.steering.contrast(m, GOOD, GOOD, how="pca"), "do not differ in layer 0"),
    "all by the same": (
        lambda m: mt.steering.contrast(m, GOOD[:1], BAD[:1], how="pca_centred"), "do not differ"),
    "no length": (lambda m: mt.steering.contrast(m, GOOD, GOOD, normalise=True), "is zero"),
    "heads": (lambda m: mt.steering.contrast(m, GOOD, BAD, site="z"), "d_model's width"),
    "a site": (lambda m: mt.steering.of_text(m, GOOD[0], site="nowhere"), "No site is called"),
    "a place": (lambda m: mt.steering.of_text(m, GOOD[0], at='"cat"'), "not in the prompt"),
    "two tokens": (lambda m: mt.steering.of_token(m, " zebra"), "not one token"),
    "half a character": (lambda m: mt.steering.of_token(m, "\ud83d"), "has half a character"),
    "a number": (lambda m: mt.steering.of_token(m, 99999), "There is no token 99999"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_vector_can_be_made_of_is_refused(tiny64, case):
    make, why = REFUSED[case]
    with pytest.raises((MicrotomeError, AddressError, TokenError), match=why):
        make(tiny64)


def test_a_masked_model_has_no_tokens_direction(bert64):
    with pytest.raises(MicrotomeError, match="fills in masks"):
        mt.steering.of_token(bert64, 7)


def test_layers_whose_pairs_agree_are_left_out_where_asked(tiny64):
    ours, theirs = ["Berlin is in Germany", "Rome is in Italy"], ["Paris is in Germany"] * 2
    pair = {"site": "resid_pre", "how": "pca"}
    same = mt.steering.contrast(tiny64, ours[:1], theirs[:1], alike="leave out", **pair)
    assert same.layers == (1, 2), "the same token stands last, at the same place"
    whole = mt.steering.contrast(tiny64, ours, theirs, **pair)
    left = mt.steering.contrast(tiny64, ours, theirs, alike="leave out", **pair)
    assert left.layers == whole.layers
    np.testing.assert_array_equal(left[1], whole[1])
    with pytest.raises(mt.MicrotomeError, match=r"do not differ in layer 0.*alike='leave out'"):
        mt.steering.contrast(tiny64, ours[:1], theirs[:1], **pair)
    with pytest.raises(mt.MicrotomeError, match="do not differ in layer 0"):
        mt.steering.contrast(tiny64, GOOD, GOOD, how="pca", alike="leave out")
