"""The parts of `ioi-levels`, each against what is known of it, both ways."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import ioi_levels as study


def by_layer(values) -> xr.DataArray:
    return xr.DataArray(np.asarray(values, float), {"layer": range(len(values))}, "layer")


@pytest.mark.parametrize(
    ("score", "start"),
    [
        ([3, 2, -1, -2], 2),
        ([-1, -2, -3], 0),
        ([3, -1, 1, -2], 3),
        ([3, -1, -2, 1], None),
        ([3, 2, 1], None),
        ([3, 0, -1], 2),
    ],
    ids=[
        "from 2",
        "from the first",
        "back and again",
        "back at the end",
        "never",
        "0 is not below",
    ],
)
def test_from_where_on_the_answer_is_flipped(score, start):
    assert study.flipped_from(by_layer(score)) == start
    measured = study.measure_flips(by_layer(score), clean=3.0)
    assert measured.holds is (start is not None)
    assert measured.wording == ("none" if start is None else "measured")


def test_an_answer_that_was_wrong_before_is_not_flipped():
    assert not study.measure_flips(by_layer([-1, -2]), clean=-3.0).holds
    assert not study.measure_never(by_layer([1, 2]), clean=-3.0).holds


@pytest.mark.parametrize(("lowest", "holds"), [(0.1, True), (0.0, False), (-0.1, False)])
def test_heads_of_one_layer(lowest, holds):
    measured = study.measure_never(by_layer([3, lowest, 2]), clean=3.0)
    assert measured.holds is holds
    assert (measured.words["layer"], measured.words["lowest"]) == (1, lowest)


def test_a_prompt_without_a_donor_is_refused(short):
    with pytest.raises(PromptError, match="patches from a donor"):
        studies.run(
            "ioi-levels",
            short,
            prompts=[{"text": "Sam gave a gift to", "target": " Sally", "contrast": " Sam"}],
        )


@pytest.fixture(scope="module")
def result(short, tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    return studies.run("ioi-levels", short, out), out


def test_the_last_hidden_state_is_the_donors_own_answer(result, short):
    done, _ = result
    donor = short.run(done.data.encoded[0].prompt.donor)
    row, one = donor.logits[0, -1].double(), done.data.encoded[0]
    score = float(row[one.target] - row[one.contrast])
    assert float(done.data.edited("hidden", "logit_diff")[-1]) == pytest.approx(score, abs=1e-3)


def test_all_heads_of_a_layer_are_patched_together(result, short):
    done, _ = result
    cell = mt.sweep(short, done.data.encoded[0].prompt, "patch L1.z.h:@-1", metrics="logit_diff")
    found = done.data.edited("heads", "logit_diff").sel(layer=1)
    assert float(found) == pytest.approx(float(cell.data["logit_diff"][0]), abs=1e-4)


def test_it_leaves_a_whole_folder(result):
    done, out = result
    for figure in ("scores", "hidden-probabilities", "heads-probabilities"):
        assert (out / "figures" / f"{figure}.png").stat().st_size > 5_000
    assert done.summary["flipped_from"] is not None


@pytest.mark.parametrize("model", ["gpt2", "gpt2-medium"])
def test_it_was_published_on_both(model, monkeypatch):
    monkeypatch.setattr("microtome.studies.study.is_published", lambda model: True)

    class Loaded:
        name = model

    assert study.STUDY.comparable(Loaded(), study.STUDY.published)
