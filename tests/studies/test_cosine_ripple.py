"""The parts of `cosine-ripple`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import stats as scipy_stats

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import cosine_ripple as study
from microtome.studies.cosine_ripple import CosineRipple
from microtome.studies.ripple import pairs_of, ripple, significant

LAYERS, PAIRS = 9, 30


def pairs(means, spread=0.02, seed=0) -> xr.DataArray:
    """Similarities ``[at_layer, pair]`` around these means."""
    means = np.asarray(means, dtype=float)
    noise = np.random.default_rng(seed).normal(size=(means.size, PAIRS))
    noise -= noise.mean(1, keepdims=True)
    return xr.DataArray(
        means[:, None] + spread * noise, {"at_layer": range(means.size)}, ("at_layer", "pair")
    )


# --------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("means", "holds"),
    [
        ([0.8, 0.7, 0.6, 0.5, 0.5, 0.5, 0.6, 0.7, 0.9], True),
        ([0.5, 0.6, 0.7, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8], False),
        ([0.5] * 9, False),
    ],
    ids=["falls", "rises", "flat"],
)
def test_similarity_falls_in_early_layers(means, holds):
    measured = study.measure_falls(pairs(means))
    assert measured.holds is holds
    assert measured.words["layer"] == 3
    assert measured.words["change"].n == PAIRS
    assert measured.value == pytest.approx(means[3] - means[0])


@pytest.mark.parametrize(
    ("means", "final", "holds", "wording"),
    [
        ([0.8, 0.5, 0.6, 0.95], 0.97, True, "measured"),
        ([0.8, 0.5, 0.6, 0.7], 0.6, False, "measured"),
        ([0.99, 0.98, 0.97, 0.96], 0.96, False, "last"),
    ],
    ids=["towards 1", "not as far", "never rises"],
)
def test_similarity_rises_at_the_end(means, final, holds, wording):
    measured = study.measure_rises(pairs(means), final)
    assert measured.wording == wording, "no change of a layer to itself"
    assert measured.holds is holds
    assert measured.words["lowest"] == int(np.argmin(means))
    assert measured.words["last"] == pytest.approx(means[-1])


def rippling(means, head_layer: int) -> xr.DataArray:
    """Changes ``[at_layer, pair]`` with these means, NaN before the head."""
    change = pairs(means)
    return change.where(change["at_layer"] >= head_layer)


@pytest.mark.parametrize(
    ("means", "holds"),
    [
        ([0, 0, 0, 0, 0, 0, 0.1, 0.1, 0.1], True),
        ([0, 0, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1], False),
        ([0] * 9, False),
        ([0, 0, 0, 0.1, 0.1, 0, 0, 0, 0.1], False),
    ],
    ids=["late", "at once", "never", "one late layer of three"],
)
def test_a_ripple_that_comes_late(means, holds):
    measured = study.measure_delayed(ripple(rippling(means, 2)), 2)
    assert measured.holds is holds
    assert measured.words["late"] == 3
    assert measured.words["last"].n == PAIRS


def test_a_head_in_the_last_layer_has_no_later_ones():
    measured = study.measure_delayed(ripple(rippling([0.0] * 9, 8)), 8)
    assert not measured.holds
    assert measured.words["late"] == 0


# -------------------------------------------------------------------------------------- the tests


def test_the_tests_are_scipys_with_both_corrections():
    change = rippling([0, 0, 0, 0.01, 0, 0.02, 0, 0.05, 0], 3)
    found = ripple(change)
    p = [scipy_stats.ttest_1samp(row, 0).pvalue for row in change.values[3:]]
    np.testing.assert_allclose(found["p"].values[3:], p)
    np.testing.assert_allclose(found["bonferroni"].values[3:], np.minimum(1, 9 * np.array(p)))
    np.testing.assert_allclose(found["fdr"].values[3:], scipy_stats.false_discovery_control(p))


def test_layers_before_the_head_are_no_tests():
    found = ripple(rippling([0.1] * 9, 3))
    for name in ("p", "bonferroni", "fdr", "value"):
        assert bool(found[name][:3].isnull().all())
    assert found["n"].values.tolist() == [0, 0, 0] + [PAIRS] * 6


@pytest.mark.slow
def test_noise_is_rarely_significant_and_a_shift_is():
    """Over many layers without a change, Bonferroni lets through about one family in twenty."""
    generator = np.random.default_rng(0)
    families = [
        xr.DataArray(generator.normal(size=(24, PAIRS)), {"at_layer": range(24)}, ("at_layer", "p"))
        for _ in range(100)
    ]
    hits = sum(bool((ripple(f)["bonferroni"] < 0.05).any()) for f in families)
    assert hits <= 12
    assert all(bool((ripple(f + 2)["bonferroni"] < 0.05).all()) for f in families[:5])


def test_all_heads_at_once_are_each_as_alone():
    change = xr.concat([rippling([0, 0, 0, 0.005 * n, 0, 0.01, 0, 0, 0], 3) for n in range(4)], "h")
    every = change.rename(h="head").expand_dims(layer=[3])
    found = significant(every)
    for head in range(4):
        alone = ripple(every.sel(layer=3, head=head))["bonferroni"] < 0.05
        shown = found.sel(layer=3, head=head)
        assert shown.values[3:].tolist() == alone.values[3:].astype(float).tolist()
        assert bool(shown[:3].isnull().all())


def test_every_pair_counts_once():
    cosines = np.arange(16.0).reshape(4, 4)
    array = xr.DataArray(cosines, dims=("at_pos", "at_other"))
    assert pairs_of(array).values.tolist() == [1, 2, 3, 6, 7, 11]
    short = array.where((array >= 0) & (xr.DataArray(range(4), dims="at_other") < 3))
    assert pairs_of(short).values.tolist() == [1, 2, 6]


# ------------------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module")
def result(nano, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("cosine-ripple", nano, out, layer=2, head=5), out


def of_kept(model, prompt, edits=()):
    """Cosines of all pairs by layer, ``[layer, pair]``, from activations that were kept."""
    hidden = model.run(prompt, edits=edits, keep=["L:.resid_post"])["L:.resid_post"].values[0]
    unit = hidden.astype(float) / np.linalg.norm(hidden.astype(float), axis=-1, keepdims=True)
    first, second = np.triu_indices(hidden.shape[1], 1)
    return (unit[:, first] * unit[:, second]).sum(-1)


def test_its_changes_are_those_of_kept_activations(result, nano):
    done, _ = result
    prompt = done.data.encoded[0].prompt
    clean, edited = of_kept(nano, prompt), of_kept(nano, prompt, [mt.zero("L2.z.h5")])
    found = study.changes(done.data).sel(layer=2, head=5)
    np.testing.assert_allclose(study.clean_pairs(done.data), clean, atol=1e-5)
    np.testing.assert_allclose(found.values[2:], (edited - clean)[2:], atol=1e-5)
    assert bool(found[:2].isnull().all())
    assert found.sizes["pair"] == 11 * 10 // 2


def test_behind_the_final_norm_is_hugging_faces_last_hidden_state(result, nano):
    done, _ = result
    ids = nano.tokenizer(done.data.encoded[0].prompt.text, return_tensors="pt")["input_ids"]
    with torch.no_grad():
        hidden = nano.hf(ids, output_hidden_states=True).hidden_states[-1][0].double()
    cosines = torch.nn.functional.cosine_similarity(hidden[:, None], hidden[None], dim=-1)
    mean = cosines.numpy()[np.triu_indices(len(hidden), 1)].mean()
    assert float(done.data.array("final")) == pytest.approx(mean, abs=1e-6)


def test_it_leaves_a_whole_folder(result):
    _, out = result
    for figure in ("similarity", "tokens-last", "change", "evidence", "reach", "of-layer"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000


def test_prompts_of_different_length_count_once_each(nano):
    texts = ["The cat sat on the mat", "Berlin is the capital of", "I am only passionately curious"]
    done = studies.run("cosine-ripple", nano, prompts=texts, layer=2, head=5)
    means = study.mean_changes(done.data).sel(layer=2, head=5)
    for row, text in zip(means.values, texts, strict=True):
        edited = of_kept(nano, text, [mt.zero("L2.z.h5")])
        np.testing.assert_allclose(row[2:], (edited - of_kept(nano, text)).mean(1)[2:], atol=1e-5)
    found = study.over_the_prompts(means)
    assert found["n"].values.tolist() == [0, 0] + [3] * 4
    last = scipy_stats.ttest_1samp(means.values[:, -1], 0).pvalue
    assert float(found["p"][-1]) == pytest.approx(last)
    assert done.document.sections[-2].title == "Over the prompts: layer 2, head 5"


def test_two_tokens_are_too_few(nano):
    with pytest.raises(PromptError, match="has only 2 in this model: give a prompt of at least 3"):
        studies.run("cosine-ripple", nano, prompt="Berlin is")


def test_the_published_parameters():
    published = CosineRipple()
    assert (published.model, published.layer) == ("gpt2-medium", 3)
