"""Edges where questions are asked: the command line, experiment files, stores, other options."""

from __future__ import annotations

import json

import numpy as np
import pytest
import yaml

import microtome as mt

BERLIN = mt.Prompt(
    "Berlin is the capital of",
    donor="Paris is the capital of",
    target=" Germany",
    contrast=" France",
)
ASKED = ("nano", "-p", BERLIN.text, "--donor", BERLIN.donor)
EDGES = "patch L*.z.h* -> L*.q_in.h*@-1"


def test_a_plan_has_axes_of_both_sides_and_says_what_is_absent(call):
    code, out, _ = call("plan", *ASKED, "-e", EDGES, "--json")
    assert code == 0
    found = json.loads(out)
    assert found["axes"] == {"prompt": 1, "from_layer": 6, "from_head": 8, "layer": 6, "head": 8}
    assert (found["cells"], found["absent"]) == (15 * 64, 21 * 64)
    assert found["why_absent"] == "a writer is not before its reader"
    assert found["engine"]["name"] == "walk"


def test_a_run_shows_receipts_of_edges_and_paths(call):
    edits = ["zero L1.mlp_out -> final_in", "patch L1.z.h2 => L4.z.h0"]
    code, out, _ = call("run", *ASKED, "-e", edits[0], "-e", edits[1])
    assert code == 0
    for edit in edits:
        assert edit in out


def test_what_is_no_edge_is_refused_before_a_model_is_loaded(call):
    for edit, said in (
        ("zero L9.z.h1 -> L1.q_in.h0", "layer 9 does not exist"),
        ("zero L1.q.h1 -> L2.q_in.h0", "L1.q.h1 is no writer"),
        ("zero L1.z.h1 -> L1.q_in.h0", "no such edge"),
    ):
        code, _, err = call("run", *ASKED, "-e", edit)
        assert code != 0
        assert said in err


def test_an_experiment_file_takes_edges():
    text = yaml.safe_dump(
        {
            "model": "nano",
            "prompts": [BERLIN.as_dict()],
            "edits": ["patch L*.mlp_out -> final_in"],
            "metrics": ["logit_diff"],
        },
        allow_unicode=True,
    )
    experiment = mt.Experiment.from_yaml(text)
    assert mt.Experiment.from_yaml(experiment.to_yaml()) == experiment
    effects = experiment.run(progress=False)
    assert effects.dims == ("prompt", "from_layer")
    assert np.isfinite(effects.data["logit_diff"].values).all()


@pytest.fixture(scope="module")
def nano():
    return mt.load()


def test_what_is_kept_on_disk_goes_on_and_opens(nano, tmp_path):
    where = tmp_path / "edges.zarr"
    first = mt.sweep(nano, BERLIN, EDGES, metrics=["logit_diff"], out=where)
    again = mt.sweep(nano, BERLIN, EDGES, metrics=["logit_diff"], out=where)
    assert first.data.identical(again.data)
    assert mt.open_effects(where).dims == ("prompt", "from_layer", "from_head", "layer", "head")
    with pytest.raises(mt.MicrotomeError, match="another"):
        mt.sweep(nano, BERLIN, EDGES.replace("q_in", "k_in"), metrics=["logit_diff"], out=where)


def test_a_coarse_map_is_refined(nano):
    effects = mt.sweep(
        nano, BERLIN, EDGES, metrics=["logit_diff"], screen="bfloat16", refine=8, verify=2
    )
    exact = mt.sweep(nano, BERLIN, EDGES, metrics=["logit_diff"])
    refined = effects.data["refined"].values
    gap = (effects.data["logit_diff"] - exact.data["logit_diff"]).values[refined]
    assert np.abs(gap).max() < 1e-4


def test_targets_of_several_tokens_are_behind_the_text(nano):
    prompt = mt.Prompt(BERLIN.text, donor=BERLIN.donor, target=" Germany and Mary")
    walked, slow = (
        mt.sweep(nano, prompt, "patch L*.mlp_out -> L*.v_in.h2", metrics="logprob", engine=engine)
        for engine in ("walk", "reference")
    )
    gap = abs(walked.data["logprob"] - slow.data["logprob"])
    assert float(gap.max()) < 1e-4
    assert float(abs(walked.delta("logprob")).max()) > 1e-4


def test_a_figure_has_one_side_where_the_other_is_picked(nano):
    effects = mt.sweep(nano, BERLIN, EDGES, metrics=["logit_diff"])
    drawn = effects.figure("logit_diff", layer=4, head=2)
    assert drawn is not None
    with pytest.raises(mt.MicrotomeError, match="from_layer"):
        effects.figure("logit_diff")
