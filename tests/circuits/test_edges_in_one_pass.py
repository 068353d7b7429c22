"""Edges of the whole graph by gradients in one pass: what the sweeps by gradients say of each."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.circuits import open_scores, score
from microtome.circuits.graph import Graph
from microtome.errors import MetricError, SweepError

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
DOG = mt.Prompt("The dog sat", donor="The cat sat", target=" on", contrast=" mat")
UNLIKE = ("gpt2", "llama, tied", "gpt_neox", "falcon", "gemma2")
"""Sequential; shared keys; parallel; one norm for both; norms after, whose edges are swept."""


@pytest.fixture(scope="module", params=UNLIKE)
def model(request, of_family):
    return of_family(request.param)


def swept(model, method, ablation="patch"):
    """All edges by sweeps, kind by kind, ``[prompt, edge]``."""
    graph = Graph.of(model)
    found = np.full((2, len(graph)), np.nan)
    for kind in mt.edges(model).kinds:
        effects = mt.sweep(
            model, [CAT, DOG], f"{ablation} {kind.text}", metrics="logit_diff", method=method,
            audit=1, verify=0,
        )  # fmt: skip
        names = kind.names(model.anatomy.dims)
        numbers = [graph.number(edge) for edge in names[names != ""].tolist()]
        found[:, numbers] = effects.approximate("logit_diff").values[:, names != ""]
    return found


@pytest.mark.parametrize("method", [mt.EAP(), mt.EAPIG(2)], ids=str)
def test_they_are_those_of_sweeps(model, method):
    if isinstance(method, mt.EAPIG) and model.anatomy.family.model_type not in ("gpt2", "llama"):
        return  # how runs are averaged is no family's own
    scores = score(model, [CAT, DOG], method=method, progress=False)
    wanted = -swept(model, method)
    found = scores.data["score"].values
    exact = 1e-5 if model.anatomy.family.inner else 1e-9
    gap = np.abs(found - wanted)
    audited = 0 if scores.audit is None else scores.audit["cells"]
    assert (scores.audit is None) is (model.anatomy.family.attn_norm is not None)
    size = max(1.0, float(np.abs(wanted).max()))
    # Cells that are exact, 64 or of 15 sweeps, are others.
    assert (gap > exact * size).sum() <= (audited or 15 * 64)


def test_zeros_are_put_in_the_place_of_shares_too(tiny64):
    scores = score(tiny64, [CAT, DOG], method="eap", ablation="zero", progress=False)
    gap = np.abs(scores.data["score"].values + swept(tiny64, "eap", "zero"))
    assert (gap > 1e-9).sum() <= 64


def test_its_audit_is_of_exact_cells(tiny64, tmp_path):
    exact = score(tiny64, [CAT, DOG], progress=False).data["score"].values
    scores = score(tiny64, [CAT, DOG], method="eap", progress=False)
    found, audit = scores.data["score"].values, scores.audit
    off = np.abs(found - exact)
    assert (off < 1e-9).sum() >= audit["cells"] == 64
    cell = audit["worst"]["cell"]
    at = cell["prompt"], scores.graph.number(cell["edge"])
    assert -exact[at] == pytest.approx(audit["worst"]["exact"], abs=1e-9)
    assert off[at] < 1e-9
    assert audit["bound"]["cells"] == exact.size - 64
    again = open_scores(scores.save(tmp_path / "scores.zarr"))
    assert again.audit == audit
    assert score(tiny64, CAT, progress=False, level="node").audit is None


def test_little_memory_gives_the_same(tiny64):
    whole, little = (
        score(tiny64, [CAT, CAT, DOG], method="eap", memory=memory, progress=False)
        for memory in (None, "3MB")
    )
    assert np.abs(whole.data["score"].values - little.data["score"].values).max() < 1e-9


def test_half_precision_has_gradients_in_float32(make_gpt2, tokenizer):
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    single = mt.load(make_gpt2(dtype=torch.bfloat16).float(), tokenizer=tokenizer)
    one, two = (
        score(m, CAT, method="eap", progress=False).data["score"].values for m in (half, single)
    )
    assert (np.abs(one - two) > 1e-4).sum() <= 128


def test_what_a_sweep_refuses_is_refused(tiny64):
    with pytest.raises(MetricError, match="approximate kl: without edits it has its best value"):
        score(tiny64, CAT, "kl", method="eap", progress=False)
    with pytest.raises(SweepError, match="is of edges"):
        score(tiny64, CAT, method="eap", level="node", progress=False)
    lone = mt.Prompt("The cat sat", target=" on", contrast=" mat")
    with pytest.raises(SweepError, match="has no donor"):
        score(tiny64, lone, method="eap_ig", ablation="zero", progress=False)
