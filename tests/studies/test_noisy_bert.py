"""Noisy BERT: its measurements where the verdict is known, and what it observes."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats as scipy_stats
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast

import microtome as mt
from microtome import studies
from microtome.errors import MetricError, PromptError, StudyError
from microtome.studies import noisy_bert as study
from microtome.studies import peaked

SEEDS = (0, 1, 2)
LAYERS = 6


@pytest.fixture(scope="module")
def result(bert64):
    return studies.run("noisy-bert", bert64, seeds=SEEDS)


def by_seed(rows) -> xr.DataArray:
    values = np.asarray(rows, dtype=float)
    layers, seeds = (range(n) for n in values.shape)
    return xr.DataArray(values, {"layer": layers, "seed": seeds}, ("layer", "seed"))


# --------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("most", "holds"), [(0, True), (2, True), (3, False)], ids=["none", "one in five", "more"]
)
def test_meaningless_tokens_in_every_layer(most, holds):
    fits = np.zeros((LAYERS, 10))
    fits[4, :most] = 1  # one layer where some seeds fit
    measured = study.measure_meaningless(by_seed(fits))
    assert measured.holds is holds
    assert measured.value == pytest.approx(most / 10)
    assert measured.words["layer"] == (4 if most else 0)


@pytest.mark.parametrize(
    ("noise", "shuffle", "holds"),
    [(9, 5, True), (10, 9, True), (8, 5, False), (10, 10, False)],
    ids=["nine in ten", "all", "too few", "no more than shuffled"],
)
def test_noise_keeps_words(noise, shuffle, holds):
    def of_ten(n):
        rows = np.zeros((10, LAYERS))
        rows[:n] = 1
        return by_seed(rows.T)

    measured = study.measure_words(of_ten(noise), of_ten(shuffle), 0.5)
    assert measured.holds is holds
    assert measured.value == pytest.approx(noise / 10)


@pytest.mark.parametrize(
    ("level", "slope", "spread", "holds"),
    [
        (-1.0, -0.3, 0.05, True),
        (-3.0, 0.3, 0.05, False),
        (3.0, -0.3, 0.05, False),
        (-1.0, -0.3, 30.0, False),
    ],
    ids=["deeper is worse", "deeper is better", "noise helps", "only chance"],
)
def test_accuracy_falls_with_depth(level, slope, spread, holds):
    noise = np.random.default_rng(3).normal(size=(LAYERS, 8)) * spread
    change = level + slope * np.arange(LAYERS)[:, None] + noise
    measured = study.measure_accuracy(by_seed(change))
    assert measured.holds is holds
    if spread < 1:
        assert measured.value == pytest.approx(slope, abs=0.05)


def test_slopes_are_least_squares_lines():
    values = np.random.default_rng(0).normal(size=(LAYERS, 3))
    wanted = [scipy_stats.linregress(range(LAYERS), column).slope for column in values.T]
    assert study.slopes(by_seed(values)) == pytest.approx(wanted)


@pytest.mark.parametrize(
    ("draw", "holds"),
    [
        (lambda rng, size: rng.standard_t(3, size), True),
        (lambda rng, size: rng.normal(size=size), False),
        (lambda rng, size: rng.laplace(size=size), False),
        (lambda rng, size: rng.uniform(size=size), False),
    ],
    ids=["heavy tails", "Gaussian", "Laplacian", "flat"],
)
def test_far_more_peaked_than_a_gaussian(draw, holds):
    values = draw(np.random.default_rng(0), (2, 2000))
    states = xr.DataArray(values, dims=("layer", "d_model"))
    measured = peaked.measure_peaked(states)
    assert measured.holds is holds
    by_hand = [float(((x - x.mean()) ** 4).mean() / x.var() ** 2 - 3) for x in values]
    estimate = measured.words["kurtosis"]
    assert estimate.value == pytest.approx(np.mean(by_hand))
    assert estimate.low < estimate.value
    assert estimate.n == 2000


def test_all_draws_of_an_interval_are_taken_together(monkeypatch):
    calls, one = [], scipy_stats.kurtosis
    monkeypatch.setattr(
        peaked.scipy_stats, "kurtosis", lambda *a, **k: calls.append(1) or one(*a, **k)
    )
    states = np.random.default_rng(0).standard_t(3, (2, 50))
    peaked.mean_kurtosis(states)
    assert len(calls) <= 3 * len(states)


def test_whole_words_of_a_wordpiece(wordpiece):
    words = study.whole_words(wordpiece, 30)
    named = {wordpiece.convert_ids_to_tokens(int(n)) for n in np.flatnonzero(words)}
    assert {"behind", "in", "no"} <= named
    assert not {"a", ".", "##s", "[MASK]", "[CLS]"} & named
    assert not words[len(wordpiece) :].any()  # rows of the vocabulary that no token has


def test_whole_words_where_a_space_begins_them():
    vocabulary = {"Ġbehind": 0, "hind": 1, "Ġ2": 2, "Ġx": 3}
    made = Tokenizer(models.WordLevel(vocabulary, "Ġx"))
    made.decoder = decoders.ByteLevel()
    words = study.whole_words(PreTrainedTokenizerFast(tokenizer_object=made), 4)
    assert words.tolist() == [True, False, False, False]


# ------------------------------------------------------------------------------------- observed


def test_every_layer_is_shuffled_and_made_noisy_as_by_hand(result, bert64):
    """The noise is drawn once more and added to the state by a hook of its own."""
    [one] = result.data.encoded
    place = one.tokens.role("mask")
    text, layer, seed = result.data.encoded[0].prompt, 1, SEEDS[1]
    edit = result.data.parameters.edit("noise", str(layer), seed)
    address = f"L{layer}.resid_post@mask"
    clean, noisy = (bert64.run(text, edits=e, keep=[address])[address] for e in ([], [edit]))
    drawn = (noisy - clean).values.ravel()
    spread = clean.values.std(ddof=1)
    assert abs(drawn.std() / spread - 2) < 0.7  # of 32 numbers
    shuffled = bert64.run(
        text, edits=[result.data.parameters.edit("shuffle", str(layer), seed)], keep=[address]
    )[address]
    assert sorted(shuffled.values.ravel()) == sorted(clean.values.ravel())
    assert not np.array_equal(shuffled.values, clean.values)

    def write(module, args, output):
        changed = output.clone()
        changed[0, place] = torch.from_numpy(noisy.values.ravel())
        return changed

    handle = bert64.hf.bert.encoder.layer[layer].register_forward_hook(write)
    with torch.no_grad():
        logits = bert64.hf(torch.tensor([one.tokens.ids])).logits[0, place]
    handle.remove()
    wanted = float(logits.log_softmax(-1)[one.target])
    found = result.data.edited("noise", "logprob").sel(layer=layer, seed=seed).item()
    assert math.isclose(found, wanted, abs_tol=1e-9)
    loss = result.data.edited("noise", "loss").sel(layer=layer, seed=seed).item()
    assert math.isclose(loss, -wanted, abs_tol=1e-9)


def test_what_is_observed_is_the_clean_run(result, bert64):
    one = result.data.encoded[0]
    place = one.tokens.role("mask")
    with torch.no_grad():
        output = bert64.hf(torch.tensor([one.tokens.ids]), output_hidden_states=True)
    states = torch.stack(output.hidden_states[1:])[:, 0, place].numpy()
    observed = result.data.of(0)
    np.testing.assert_allclose(observed.array("states").values, states, atol=1e-12)
    row = output.logits[0, place].numpy()
    assert observed.array("ranks").values.tolist() == [int((row > x).sum()) + 1 for x in row]
    top = observed.array("tops").sel(exercise="shuffle").isel(place=0).values
    swept = result.data.edited("shuffle", "top1").sel(seed=SEEDS[0]).values
    assert top.tolist() == swept.tolist()


# ------------------------------------------------------------------------------------ as a whole


def test_it_runs_whole_and_is_judged_here(bert64, tmp_path):
    done = studies.run("noisy-bert", bert64, tmp_path / "out", seeds=SEEDS)
    assert {f.verdict for f in done.findings} <= {"holds here", "does not hold here", "not judged"}
    assert "rank" in done.document.caveats[0]  # of random weights
    assert (tmp_path / "out" / "report.html").exists()
    assert len(done.summary["noise"]["logprob"]) == bert64.anatomy.dims.n_layers


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"prompt": "pay no attention"}, PromptError, "has no mask: write"),
        ({"prompt": "[MASK] no [MASK]"}, PromptError, "has 2 masks"),
        ({"seeds": [1]}, StudyError, "at least 2"),
        ({"target": None}, MetricError, "needs a target"),
    ],
    ids=str,
)
def test_what_it_cannot_take(bert64, given, error, words):
    with pytest.raises(error, match=words):
        studies.run("noisy-bert", bert64, **given)


def test_the_published_mask_is_that_of_the_model(make_bert, wordpiece):
    """A tokenizer whose mask is written otherwise takes the prompt as published."""
    other = PreTrainedTokenizerFast(
        tokenizer_object=wordpiece.backend_tokenizer, unk_token="[UNK]", mask_token="<mask>"
    )
    hf = make_bert()
    hf.resize_token_embeddings(len(other))
    done = studies.run("noisy-bert", mt.load(hf.eval(), tokenizer=other), seeds=SEEDS)
    assert done.data.encoded[0].tokens.text == "Pay no attention to that man <mask> the curtain"


def test_ranks_that_are_all_first_have_no_interval_and_shares_have_wilsons():
    """Ten seeds of rank 1 are no share of ten yeses, though the numbers are the same."""
    ones = xr.DataArray(np.ones((3, 10)), dims=("layer", "seed"))
    mean, error = study.over_seeds(ones)
    assert (mean.tolist(), error.tolist()) == ([1] * 3, [0] * 3)
    mean, (above, below) = study.shares_over_seeds(ones)
    assert (mean.tolist(), above.tolist()) == ([1] * 3, [0] * 3)
    np.testing.assert_allclose(below, 1 - 0.7225, atol=1e-4)  # Wilson's for 10 of 10
