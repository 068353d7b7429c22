"""What docs/edges.md says of the embedded model is so."""

from __future__ import annotations

import numpy as np
import pytest
from recipes.pages import ROOT, run

import microtome as mt


@pytest.fixture(scope="module")
def page():
    """The page's names, when its code has run."""
    names: dict[str, object] = {}
    run(ROOT / "docs" / "edges.md", names)
    return names


def test_head_1_6_reads_the_name_of_the_first_mlp(page):
    effects = page["effects"]
    assert effects.dims == ("prompt", "from_layer", "layer", "head")
    assert float(effects.data["clean_logit_diff"].mean()) == pytest.approx(13.48, abs=0.01)
    moved = effects.delta("logit_diff").mean("prompt")
    assert float(moved.sel(from_layer=0, layer=1, head=6)) == pytest.approx(-9.31, abs=0.01)
    others = np.sort(np.abs(moved.values[np.isfinite(moved.values)]))
    assert others[-2] == pytest.approx(0.09, abs=0.01)


def test_it_writes_straight_to_the_end(page):
    edit = "patch L*.z.h* -> final_in"
    effects = mt.sweep(page["model"], page["prompts"], edit, metrics=["logit_diff"], verify=1)
    moved = effects.delta("logit_diff").mean("prompt")
    assert float(moved.sel(from_layer=1, from_head=6)) == pytest.approx(-1.71, abs=0.01)
    assert float(moved.min()) == float(moved.sel(from_layer=1, from_head=6))


def test_its_edges(page):
    edges = page["edges"]
    assert (edges[0], len(edges)) == ("input->a0.h0<q>", 3628)
    assert str(edges.edge("a0.h1->m3")) == "L0.z.h1 -> L3.mlp_in"
    assert len(edges.kinds) == 15
