"""The parts of `hidden-scaling`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from scipy import special

import microtome as mt
from microtome import studies
from microtome.studies import hidden_scaling as study
from microtome.studies.hidden_scaling import HiddenScaling
from microtome.studies.temperature import Fit, fit_temperature


def by_layer(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    return xr.DataArray(values, {"layer": range(len(values))}, "layer")


@pytest.fixture
def logits():
    return np.random.default_rng(0).normal(size=500) * 2


# ------------------------------------------------------------------------------- the temperature


@pytest.mark.parametrize("temperature", [0.05, 0.5, 1.0, 1.7, 40.0])
def test_a_temperature_is_found_again_whatever_the_shift(logits, temperature):
    fit = fit_temperature(logits, logits / temperature + 3.0)
    assert fit.temperature == pytest.approx(temperature, rel=1e-4)
    assert fit.left == pytest.approx(0.0, abs=1e-8)
    assert (fit.after < fit.before) == (temperature < 1)


def test_no_temperature_is_nearer_than_the_one_found(logits):
    other = np.random.default_rng(1).normal(size=500)
    edited = logits * 0.8 + other
    fit = fit_temperature(logits, edited)
    p = special.softmax(edited)

    def kl(t):
        return float((p * (np.log(p) - special.log_softmax(logits / t))).sum())

    tried = [kl(t) for t in np.geomspace(0.05, 50, 400)]
    assert fit.left <= min(tried) + 1e-9
    assert fit.left == pytest.approx(kl(fit.temperature))
    assert fit.kl == pytest.approx(kl(1.0))


def test_entropy_of_an_even_prediction():
    fit = fit_temperature(np.zeros(8), np.zeros(8))
    assert fit.before == fit.after == pytest.approx(np.log(8))
    assert fit.kl == fit.left == 0


# --------------------------------------------------------------------------------- measurements


@pytest.mark.parametrize(
    ("shift", "noise", "holds"),
    [(-1.0, 0.2, True), (1.0, 0.2, False), (-1.0, 2.0, False), (-1.0, 0.0, True)],
    ids=["down and alike", "up", "unlike", "exactly alike"],
)
def test_a_global_shift(logits, shift, noise, holds):
    other = np.random.default_rng(1).normal(size=500)
    measured = study.measure_shift(logits, logits + shift + noise * other)
    assert measured.holds is holds
    assert measured.words["shift"] == pytest.approx(shift, abs=0.2)


def test_a_shift_of_some_logits_only_is_not_global(logits):
    edited = logits - 0.1 * (np.arange(500) % 10 > 0)
    assert not study.measure_shift(logits, edited).holds


@pytest.mark.parametrize(
    ("loss", "rank", "holds"),
    [
        ([-1, -1, 5, 5, 5, 5], [-2, -1, 9, 9, 9, 9], True),
        ([1, 1, -5, -5, -5, -5], [-2, -1, 0, 0, 0, 0], False),
        ([-1, -1, 0, 0, 0, 0], [2, 1, 0, 0, 0, 0], False),
    ],
)
def test_early_layers(loss, rank, holds):
    measured = study.measure_early(by_layer(loss), by_layer(rank), 12.0)
    assert measured.holds is holds
    assert measured.words["last"] == 1
    assert measured.words["loss"].n == 2


def test_rank_1_cannot_improve():
    measured = study.measure_early(by_layer([-1, -1, 0]), by_layer([0, 0, 0]), 1.0)
    assert (measured.holds, measured.wording) == (None, "first")


@pytest.mark.parametrize(
    ("loss", "holds"),
    [([-1, -1, -1, 1], True), ([-1, -1, 1, 1], False), ([-1, -1, -1e-6, -1e-6], False)],
    ids=["most", "half", "rounding is not counted"],
)
def test_most_layers(loss, holds):
    measured = study.measure_most(by_layer(loss))
    assert measured.holds is holds
    share = measured.words["share"]
    assert 0 < share.low < share.value < share.high < 1
    assert share.n == 4


@pytest.mark.parametrize(("slope", "holds"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_growth_over_layers(slope, holds):
    noise = 0.05 * np.random.default_rng(0).normal(size=12)
    measured = study.measure_growth(by_layer(slope * np.arange(12) + noise))
    assert measured.holds is holds
    assert measured.words["slope"].n == 12


def test_two_layers_make_no_trend():
    assert not study.measure_growth(by_layer([0.0, 1.0])).holds


@pytest.mark.parametrize(
    ("fit", "holds"),
    [
        (Fit(0.8, 1.0, 0.2, 3.0, 2.0), True),
        (Fit(1.2, 1.0, 0.2, 2.0, 3.0), False),
        (Fit(0.8, 1.0, 0.6, 3.0, 2.0), False),
        (Fit(0.8, 1.0, 0.2, 2.0, 3.0), False),
        (Fit(1.0, 0.0, 0.0, 2.0, 2.0), False),
    ],
    ids=["sharper", "flatter", "explains little", "entropy rises", "no edit"],
)
def test_like_a_lower_temperature(fit, holds):
    assert study.measure_temperature(fit).holds is holds


# ------------------------------------------------------------------------------------ on a model


@pytest.fixture(scope="module")
def result(nano, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    given = {"layer": 1, "also": {3: 0.9}, "factors": [0.5, 1.0, 2.0]}
    return studies.run("hidden-scaling", nano, out, **given), out


def test_several_layers_are_scaled_in_one_run(result, nano):
    done, _ = result
    edits = [str(edit) for edit in done.data.parameters.together]
    assert edits == ["scale(0.6) L1.resid_post", "scale(0.9) L3.resid_post"]
    run = nano.run(done.data.encoded[0].prompt, edits=edits)
    np.testing.assert_allclose(
        done.data.array("edited"), run.logits[0, -1].numpy(), rtol=0, atol=1e-6
    )
    target = done.data.encoded[0].target
    loss = -float(torch.log_softmax(run.logits[0, -1].double(), -1)[target])
    assert done.summary["edited"]["loss"] == pytest.approx(loss, abs=1e-4)


def test_a_factor_of_one_is_no_edit(result):
    done, _ = result
    assert float(abs(done.data.effect("factors", "loss").sel(factor=1.0)).max()) < study.ROUNDING


def test_the_temperature_of_a_layer_is_that_of_its_run(result, nano):
    done, _ = result
    prompt = done.data.encoded[0].prompt
    run = nano.run(prompt, edits=mt.scale({4: 0.6}))
    fit = fit_temperature(run.clean_logits[0, -1].numpy(), run.logits[0, -1].numpy())
    found = done.data.dataset("fits").sel(layer=4)
    assert float(found["temperature"]) == pytest.approx(fit.temperature, rel=1e-4)
    assert float(found["left"]) == pytest.approx(fit.left, abs=1e-6)


def test_it_leaves_a_whole_folder(result):
    _, out = result
    for figure in ("logits", "loss-by-layer", "rank-by-layer", "loss-map", "best-temperature"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000
    assert (out / "effects" / "factors.zarr").exists()


def test_the_published_parameters():
    published = HiddenScaling()
    assert (published.model, published.layer, published.factor) == ("gpt2-medium", 2, 0.6)
    assert min(published.factors) == 0.1
    assert max(published.factors) == 10


def test_the_published_target_is_the_published_token(gpt2_tokenizer):
    assert gpt2_tokenizer(HiddenScaling().target)["input_ids"] == [11040]
