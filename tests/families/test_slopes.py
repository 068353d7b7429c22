"""Gradients of every family at every site, held against finite differences through the walk."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from oracles.families import FAMILIES, turn

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The dog sat on the cat, and",
    target=" cat",
    contrast=" dog",
)
METRIC = "logit_diff"
EACH = ("gpt2", "llama, tied", "bert", "olmo2", "gpt_neox")
"""One projection for q, k and v; shared keys; an encoder; norms of all heads; parallel blocks."""
EVERY = "llama, tied"


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def addresses(model):
    """One place of each site, starred over layers where it is in one."""
    for site in model.anatomy.sites:
        if site.name == "logits":
            continue
        layers = "L*." if site.layered else ""
        units = {"head": ".h1", "kv_head": ".h0", "neuron": ".n{0,3}", "d_model": ".d{0,3}"}
        middle = "".join(units.get(axis, "") for axis in site.axes)
        place = "@-1,{6,7}" if site.name == "pattern" else "@{2,-1}"
        yield f"{layers}{site.name}{middle}{place}"


def differences(model, edits):
    """The derivative along a direction, by Richardson's extrapolation of central differences.

    With it comes how exact that is. Families that compute something in float32 are taken in larger
    steps, or there would be nothing but that rounding.
    """
    step, rounding = (5e-4, 1e-2) if model.anatomy.family.inner else (3e-4, 1e-9)
    steps = [step, -step, step / 2, -step / 2]
    found = mt.sweep(model, CAT, edits, metrics=METRIC, over={"vector": steps}, verify=0)
    v = {h: found.data[METRIC].sel(vector=h).values for h in steps}
    wide = (v[step] - v[-step]) / (2 * step)
    narrow = (v[step / 2] - v[-step / 2]) / step
    return (4 * narrow - wide) / 3, rounding


def gap(model, edits):
    rough = mt.sweep(model, CAT, edits, metrics=METRIC, method="atp", audit=1, verify=0)
    wanted, rounding = differences(model, edits)
    found = rough.approximate(METRIC).values
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    there = ~np.isnan(wanted)
    assert np.abs(wanted[there]).max() > 1e-6
    return np.abs(found - wanted)[there].max(), rounding * max(1.0, np.abs(wanted[there]).max())


def test_gradients_at_all_sites_together_are_what_small_edits_do(model, name):
    past = ("L*.q.", "L*.k.", "L*.v.", "L*.k_in_", "L*.v_in_", "L*.k_head", "L*.v_head")
    ends = ("embed", "final_in")  # the first stream and the last, which blocks have too: by turns
    places = [place for place in addresses(model) if not place.startswith(past)]
    alone = [place for place in places if place.startswith(ends)]
    assert len(alone) == len(ends)
    between = [place for place in places if place not in alone]
    for some in (between, [alone[turn(name) % len(ends)]]):
        found, most = gap(model, [mt.add(place, 1.0) for place in some])
        assert found <= most


@pytest.mark.parametrize("name", EACH, indirect=True)
def test_a_gradient_at_each_site_is_what_small_edits_do(model, name):
    """All of the one that has every site; of the others every third one, by turns."""
    wrong = {}
    places = [*addresses(model)]
    for place in places if name == EVERY else places[EACH.index(name) % 3 :: 3]:
        found, most = gap(model, [mt.add(place, 1.0)])
        if not found <= most:
            wrong[place] = found, most
    assert not wrong
