"""Screening: a coarse map first, then the strongest cells exactly; and the result says which."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.engines.screen import coarse
from microtome.errors import MetricError, SweepError
from microtome.readings.registry import readings
from microtome.report.of_sweep import document_of_sweep
from oracles import families as by_hand

JOHN = mt.Prompt("When Mary and John went to", target=" Mary", contrast=" John")
CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
EDIT = "zero L*.z.h*@*"
METRICS = ["logit_diff", "prob", "top1", "std(L*.resid_post)"]


@pytest.fixture(scope="module")
def exact(tiny):
    return mt.sweep(tiny, [JOHN, CAT], EDIT, metrics=METRICS)


@pytest.fixture(scope="module")
def screened(tiny):
    return mt.sweep(tiny, [JOHN, CAT], EDIT, metrics=METRICS, screen="bfloat16", refine=20)


def test_the_strongest_cells_are_exact(exact, screened):
    refined = screened.data["refined"].values
    assert refined.sum() == 20
    for name in ("logit_diff", "prob", "values_changed", "std(L*.resid_post)"):
        own, there = screened.data[name].values[refined], exact.data[name].values[refined]
        np.testing.assert_allclose(own, there, atol=1e-5)
    # They are the strongest of the screen, and nearly those of the exact map.
    strongest = abs(screened.delta("logit_diff")).values
    assert strongest[refined].min() > 0.9 * np.nanmax(strongest[~refined])


def test_the_others_are_coarse_and_near(exact, screened):
    refined = screened.data["refined"]
    coarse, fine = screened.data["logit_diff"], exact.data["logit_diff"]
    gap = abs(coarse - fine).where(~refined)
    assert 1e-5 < float(gap.max()) < 0.2
    assert bool((coarse.isnull() == fine.isnull()).all())


def test_effects_are_differences_within_one_type(screened):
    refined = screened.data["refined"]
    clean, coarse = (screened.data[f"{kind}clean_logit_diff"] for kind in ("", "screen_"))
    wanted = screened.data["logit_diff"] - clean.where(refined, coarse)
    assert screened.delta("logit_diff").dims == screened.dims
    np.testing.assert_array_equal(screened.delta("logit_diff"), wanted.transpose(*screened.dims))
    top = screened.top(40, "logit_diff", over=None)
    np.testing.assert_allclose(top["edited"] - top["clean"], top["effect"], atol=1e-12)


def test_the_record_says_what_was_done(screened, exact):
    record = screened.provenance["screen"]
    assert record["dtype"] == "bfloat16"
    assert record["refined"] == 20
    assert 0 < record["largest_difference"]["logit_diff"] < 0.2
    assert exact.provenance["screen"] is None
    assert screened.provenance["verification"]["cells"] >= 4
    assert set(screened.metrics) == set(exact.metrics)


def test_it_comes_back_from_a_file_and_its_report_says_so(tiny, screened, tmp_path):
    screened.save(tmp_path / "x.zarr")
    again = mt.open_effects(tmp_path / "x.zarr")
    assert again.data.identical(screened.data)
    document = document_of_sweep(screened, tiny.run([JOHN, CAT]))
    assert "Screened: all cells in bfloat16 first, then the 20" in document.method


def test_a_prompt_that_is_shorter_is_not_taken_for_a_strong_one(tiny):
    """Positions that it does not have are no effects, and no overflow."""
    metric = "distance(L1.resid_post@*)"
    effects = mt.sweep(
        tiny, [JOHN, CAT], "zero L*.z.h*@*", metrics=[metric], screen="bfloat16", refine=20
    )
    whole = mt.sweep(tiny, [JOHN, CAT], "zero L*.z.h*@*", metrics=[metric])
    largest = whole.data[metric].max("at_pos").transpose(*effects.data["refined"].dims)
    refined = effects.data["refined"]
    assert float(largest.where(refined).min()) > 0.9 * float(largest.where(~refined).max())
    assert bool(refined.isel(prompt=1).any())


def test_the_coarse_model_is_the_one_that_is_loaded_in_its_type(tokenizer, tmp_path):
    hf = by_hand.make("llama", len(tokenizer), torch.float32)
    hf.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    rough = coarse(mt.load(tmp_path), "bfloat16", readings(["prob"])[0])
    loaded = mt.load(tmp_path, dtype="bfloat16")
    assert rough.dtype == loaded.dtype == torch.bfloat16
    for name, own in rough.hf.named_buffers():
        other = loaded.hf.get_buffer(name)
        assert own.dtype == other.dtype
        assert torch.equal(own, other), name
    assert torch.equal(rough.run(CAT).logits, loaded.run(CAT).logits)


def test_the_model_stays_as_it_is(tiny, screened):
    assert tiny.dtype == torch.float32


def test_more_to_refine_than_there_is_gives_the_exact_map(tiny):
    effects = mt.sweep(tiny, JOHN, "zero L*.z.h*", metrics=["prob"], screen="bfloat16", refine=99)
    whole = mt.sweep(tiny, JOHN, "zero L*.z.h*", metrics=["prob"])
    assert bool(effects.data["refined"].all())
    np.testing.assert_allclose(effects.data["prob"], whole.data["prob"], atol=1e-7)


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"screen": "bfloat"}, SweepError, "Did you mean 'bfloat16'"),
        ({"screen": "float32"}, SweepError, "not coarser than the model"),
        ({"screen": "bfloat16", "refine": 0}, SweepError, "refine=0"),
        ({"screen": "bfloat16", "metrics": ["top1"]}, MetricError, "ranks cells"),
    ],
)
def test_what_makes_no_sense_is_refused(tiny, options, error, says):
    with pytest.raises(error, match=says):
        mt.sweep(tiny, JOHN, EDIT, **{"metrics": ["prob"], **options})
