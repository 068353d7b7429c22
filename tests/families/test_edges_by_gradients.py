"""Edge attribution patching: what its edges add up to, in families that differ most."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
SHAPES = ("llama, tied", "gemma2", "falcon", "mixtral")
"""Shared keys; norms after; parallel, with one norm for both; experts."""
READERS = ("L*.q_in.h*", "L*.k_in.h*", "L*.v_in.h*", "L*.mlp_in", "final_in")


@pytest.fixture(scope="module", params=SHAPES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def of(model, edit, method):
    found = mt.sweep(model, CAT, edit, metrics="logit_diff", method=method, audit=1, verify=0)
    return found.approximate("logit_diff")


def from_writer(model, writer, method):
    """The sum over all edges of each writer; what does not exist adds nothing."""
    total = 0.0
    for reader in READERS:
        each = of(model, f"patch {writer} -> {reader}", method)
        total = total + each.sum([d for d in each.dims if d in ("layer", "head")])
    return total


def test_the_edges_of_a_writer_add_up_to_what_it_writes(model):
    writers = ["embed", "L*.mlp_out", "L*.attn_out"]
    if model.anatomy.family.attn_norm is None:
        writers.append("L*.z.h*")
    for writer in writers:
        each, whole = from_writer(model, writer, "eap"), of(model, f"patch {writer}", "atp")
        renamed = {f"from_{d}": d for d in ("layer", "head") if f"from_{d}" in each.dims}
        gap = np.abs(each.rename(renamed) - whole).max()
        rounding = 1e-5 if model.anatomy.family.inner else 1e-9
        assert gap < rounding * max(1.0, float(np.abs(whole).max())), writer


def test_the_edges_of_the_input_add_up_to_the_whole_difference(of_family):
    model = of_family("gpt2")
    clean = float(model.run(CAT).logits[0, -1] @ _difference(model))
    donor = float(model.run(CAT.donor).logits[0, -1] @ _difference(model))
    coarse, fine = (float(from_writer(model, "embed", mt.EAPIG(n)).squeeze()) for n in (10, 20))
    # Sums over the ends of steps are off by so much a step, which two of them tell.
    assert abs(2 * fine - coarse - (donor - clean)) < 0.01
    assert abs(fine - (donor - clean)) < 0.1


def _difference(model):
    """Target − contrast, as a vector over the vocabulary."""
    [one] = model.encode(CAT)
    found = torch.zeros(model.anatomy.dims.d_vocab, dtype=torch.float64)
    found[one.target], found[one.contrast] = 1.0, -1.0
    return found
