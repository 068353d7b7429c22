"""Each claim's measurement, on data where the right verdict is known, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

from microtome import studies
from microtome.studies import head_ablation as study

PROMPT = study.STUDY.published.as_prompt()


def layer_by_head(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    layers, heads = values.shape
    return xr.DataArray(values, {"layer": range(layers), "head": range(heads)}, ("layer", "head"))


@pytest.fixture
def noise():
    return np.random.default_rng(0).normal(size=(12, 12))


def test_scattered_effects_have_no_region(noise):
    assert study.measure_scattered(layer_by_head(noise)).holds


def test_effects_of_one_layer_are_a_region(noise):
    noise[7] *= 100
    measured = study.measure_scattered(layer_by_head(noise))
    assert not measured.holds
    assert measured.words["layer"] == 7


@pytest.mark.parametrize(("size", "holds"), [(0.009, True), (0.011, False)])
def test_the_contrast_moves_or_not(size, holds):
    effect = np.zeros((2, 2))
    effect[1, 0] = -size
    measured = study.measure_contrast(layer_by_head(effect), 0.02)
    assert measured.holds is holds
    assert measured.words == {"largest": size, "clean": 0.02}


class Cells:
    """As much of an `Effects` as counting tokens needs."""

    def __init__(self, tokens):
        self.data = {"top1_token": xr.DataArray(np.array(tokens, dtype=object))}
        self.n_cells = len(tokens)


@pytest.mark.parametrize(
    ("tokens", "holds"),
    [
        ([" Germany"] * 143 + [" the"], True),
        ([" Germany"] * 144, False),
        ([" Germany"] * 143 + [" a"], False),
    ],
)
def test_top_tokens_are_counted(tokens, holds):
    measured = study.measure_top1(Cells(tokens))
    assert measured.holds is holds
    assert measured.words["n"] == 144
    assert f"{tokens.count(' Germany')} × “·Germany”" in measured.words["counts"]


def test_small_means_without_a_trend(noise):
    centred = 0.01 * (noise - noise.mean())
    assert study.measure_means(layer_by_head(centred), spread=1.0).holds


@pytest.mark.parametrize("drift", ["trend", "off centre", "large"])
def test_means_that_drift_are_off_centre_or_large(noise, drift):
    means = 0.01 * (noise - noise.mean())
    match drift:
        case "trend":
            means += 0.01 * (np.arange(12)[:, None] - 5.5)
        case "off centre":
            means += 0.02
        case "large":
            means *= 50
    assert not study.measure_means(layer_by_head(means), spread=1.0).holds


def test_methods_that_agree_and_that_do_not(noise):
    other = np.random.default_rng(1).normal(size=noise.shape)
    same = study.measure_agreement(layer_by_head(noise), layer_by_head(noise + 0.01 * other))
    apart = study.measure_agreement(layer_by_head(noise), layer_by_head(other))
    assert same.holds
    assert not apart.holds


@pytest.fixture(scope="module")
def result(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("head-ablation", model="nano", out=out), out


def test_it_leaves_a_whole_folder(result):
    done, out = result
    for name in ("report.html", "summary.json", "effects/zero.zarr", "effects/mean.zarr"):
        assert (out / name).exists()
    for figure in ("zero-target", "zero-contrast", "mean-target", "head-means"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000
    assert sum(effects.n_cells for effects in done.effects.values()) == done.summary["cells"]


def test_every_claim_is_judged_here_but_the_one_about_another_checkpoints_heads(result):
    done, _ = result
    by_claim = dict(zip([c.name for c in study.CLAIMS], done.findings, strict=True))
    assert by_claim.pop("top1").verdict == "not comparable on this model"
    assert {one.verdict for one in by_claim.values()} <= {"holds here", "does not hold here"}
    assert all(finding.measured for finding in done.findings)
    assert {finding.published for finding in done.findings} == {"published on gpt2"}


@pytest.mark.parametrize("shape", [(1, 4), (3, 1), (1, 1)])
def test_one_layer_or_one_head_a_layer_cannot_be_compared(shape):
    effect = layer_by_head(np.random.default_rng(0).normal(size=shape))
    measured = study.measure_scattered(effect)
    assert (measured.holds, measured.wording) == (None, "none")


def test_what_too_few_heads_say_is_no_verdict():
    few = layer_by_head([[0.1, -0.1]])
    assert study.measure_means(few, 1.0).holds is None
    assert study.measure_agreement(few, few).holds is None


def test_head_means_are_those_of_z(result, nano):
    means, spread = study.head_means(nano, PROMPT)
    z = nano.run(PROMPT, keep=["L2.z.h3"])["L2.z.h3"]
    assert float(means.sel(layer=2, head=3)) == pytest.approx(float(z.mean()), abs=1e-6)
    assert spread > 0
