"""The parts of `ablation-methods`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import microtome as mt
from microtome import studies
from microtome.studies import ablation_methods as study


def heads(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float).reshape(12, 12)
    return xr.DataArray(values, {"layer": range(12), "head": range(12)}, ("layer", "head"))


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=144)


def test_the_same_distribution_from_other_heads_coincides(noise):
    measured = study.measure_coincide(heads(noise), heads(noise[::-1]))
    assert measured.holds
    assert measured.words["d"] == 0
    assert abs(measured.words["r"].value) < 0.5
    assert measured.words["n"] == 144


@pytest.mark.parametrize("change", [lambda x: x + 1, lambda x: 4 * x], ids=["shifted", "wider"])
def test_another_distribution_does_not(noise, change):
    assert not study.measure_coincide(heads(noise), heads(change(noise))).holds


@pytest.mark.parametrize(("share", "holds"), [(0.009, True), (0.011, False), (1.0, False)])
def test_the_unspaced_token_moves_or_not(noise, share, holds):
    measured = study.measure_unspaced(heads(noise), heads(-share * noise))
    assert measured.holds is holds
    assert measured.value == pytest.approx(share)


def test_where_nothing_moves_nothing_is_shown(noise):
    assert not study.measure_unspaced(heads(0 * noise), heads(0 * noise)).holds


@pytest.mark.parametrize(("width", "holds"), [(0.4, True), (1.0, False), (2.0, False)])
def test_the_tighter_distribution(noise, width, holds):
    measured = study.measure_tighter(heads(noise), heads(width * noise))
    assert measured.holds is holds
    assert measured.words["ratio"] == pytest.approx(width)
    assert measured.words["n"] == 144


def test_one_wide_head_alone_is_no_tighter_distribution(noise):
    """The deviation falls with one outlier; the heads as a whole are no nearer."""
    wide = noise.copy()
    wide[0] = 100
    measured = study.measure_tighter(heads(wide), heads(np.roll(noise, 1)))
    assert measured.words["ratio"] < 0.5
    assert not measured.holds


@pytest.fixture(scope="module")
def result(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("ablation-methods", short, out), out


def test_its_sweeps_are_what_they_are_called(result, short):
    done, _ = result
    prompt = done.data.encoded[0].prompt
    for name, edit in (("zero-all", "zero L1.z.h0"), ("mean-last", "mean L1.z.h0@-1")):
        cell = mt.sweep(short, prompt, edit, metrics="prob", progress=False)
        found = done.data.edited(name, "prob").sel(layer=1, head=0)
        assert float(found) == pytest.approx(float(cell.data["prob"][0]), abs=1e-5)


def test_the_contrast_is_the_word_without_its_space(result):
    done, out = result
    published = done.study.published
    assert published.target == " " + published.contrast
    assert {finding.verdict for finding in done.findings} <= {"holds here", "does not hold here"}
    assert (out / "figures" / "zero-positions.png").stat().st_size > 5_000
