"""The parts of `ioi-head-token`, each against what is known of it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr

import microtome as mt
from microtome import studies
from microtome.errors import PromptError
from microtome.studies import ioi_head_token as study

SCORE = "logit_diff"
PROMPT = study.STUDY.published.as_prompt()


def layer_by_head(values) -> xr.DataArray:
    values = np.asarray(values, dtype=float)
    layers, heads = values.shape
    return xr.DataArray(values, {"layer": range(layers), "head": range(heads)}, ("layer", "head"))


@pytest.mark.parametrize(("single", "holds"), [(2.4, True), (2.6, False)])
def test_heads_beside_hidden_states(single, holds):
    hidden = xr.DataArray([1.0, -10.0], dims="layer")
    measured = study.measure_tiny(layer_by_head([[0.1, -single]]), hidden)
    assert measured.holds is holds
    assert measured.value == measured.words["ratio"] == single / 10


@pytest.mark.parametrize(("late", "holds"), [(5.0, True), (1.0, False), (0.2, False)])
def test_larger_in_the_last_third(late, holds):
    effect = np.random.default_rng(0).normal(size=(9, 8))
    effect[6:] *= late
    measured = study.measure_late(layer_by_head(effect))
    assert measured.holds is holds
    assert measured.words["start"] == 6
    assert (measured.words["n_late"], measured.words["n_early"]) == (24, 48)


@pytest.mark.parametrize("shape", [(1, 8), (2, 1), (2, 2)])
def test_too_few_effects_have_no_late_and_early(shape):
    measured = study.measure_late(layer_by_head(np.ones(shape)))
    assert (measured.holds, measured.wording) == (None, "none")


def test_heads_beside_hidden_states_that_move_nothing():
    measured = study.measure_tiny(layer_by_head([[0.1]]), xr.DataArray([0.0], dims="layer"))
    assert measured.holds is None


@pytest.mark.parametrize(
    ("values", "holds"),
    [([[1.0, -0.5]], True), ([[1.0, 0.5]], False), ([[1.0, -0.001]], False)],
)
def test_raising_and_lowering(values, holds):
    assert study.measure_both_ways(layer_by_head(values)).holds is holds


@pytest.mark.parametrize(("deviation", "holds"), [(7e-7, True), (9e-7, False)])
def test_the_equation_is_held_to_rounding(deviation, holds):
    parts = xr.Dataset(
        {"deviation": ("layer", [0.0, deviation]), "rounding": ("layer", [1e-7, 1e-7])}
    )
    assert study.measure_equation(parts).holds is holds


def test_block_parts_are_those_of_the_model(short):
    parts = study.block_parts(short, PROMPT)
    [encoded] = short.encode(PROMPT)
    with torch.no_grad():
        hidden = short.hf(torch.tensor([encoded.tokens.ids]), output_hidden_states=True)
    for layer, state in enumerate(hidden.hidden_states[:-1]):
        norm = float(state[0, -1].norm())
        assert float(parts["x_in"][layer]) == pytest.approx(norm, rel=1e-5)
    assert study.measure_equation(parts).holds


def test_head_shares_add_up_to_attention(tiny64):
    prompt = mt.Prompt("Berlin is the capital of")
    shares = study.head_shares(tiny64, prompt)
    z = tiny64.run(prompt, keep=["L1.z@-1"])["L1.z@-1"].values[0, 0]
    weight = tiny64.hf.transformer.h[1].attn.c_proj.weight.detach().numpy()
    for head in range(4):
        own = z[head] @ weight[8 * head : 8 * (head + 1)]
        assert float(shares.sel(layer=1, head=head)) == pytest.approx(np.linalg.norm(own))


def test_all_heads_together_are_the_last_group(short):
    """Patching every head at the last token is one cell that can be written by hand."""
    heads = mt.sweep(short, PROMPT, "patch L*.z.h*@-1", metrics=SCORE)
    groups = study.patch_groups(short, PROMPT, heads)
    dims = short.anatomy.dims
    assert groups["k"].values[-1] == dims.n_layers * dims.n_heads
    whole = mt.sweep(short, PROMPT, "patch L:.z@-1", metrics=SCORE)
    assert groups.sel(order="strongest").values[-1] == pytest.approx(
        whole.data[SCORE].item(), abs=1e-4
    )
    strongest = heads.top(1, SCORE).iloc[0]
    assert groups.sel(order="strongest").values[0] == pytest.approx(strongest["edited"], abs=1e-4)
    assert groups.sel(order="lowering").values[0] == pytest.approx(
        float(heads.data[SCORE].min()), abs=1e-4
    )


def test_a_donor_of_another_length_is_refused(short):
    prompt = mt.Prompt(PROMPT.text, donor="Sally gave a gift to", target=" Sally", contrast=" Sam")
    with pytest.raises(PromptError, match="must have the same number"):
        studies.run("ioi-head-token", model=short, prompt=prompt)


def test_the_study_runs_whole(short, tmp_path):
    done = studies.run("ioi-head-token", model=short, out=tmp_path / "out")
    assert (tmp_path / "out" / "report.html").exists()
    verdicts = [finding.verdict for finding in done.findings]
    assert verdicts[:3] == [v for v in verdicts[:3] if v in ("holds here", "does not hold here")]
    assert verdicts[3] == "holds here"
    assert not done.document.caveats
    # short knows the answer, and the donor's hidden state turns it round.
    assert done.summary["clean_score"] > 2
    assert float(done.effects["hidden"].data[SCORE].min()) < 0
