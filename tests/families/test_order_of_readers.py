"""What a reader reads is edited before what it makes of it; where something is shared, after."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from families.both import on_both_paths
from oracles.families import FAMILIES, HEADS, UNLIKE, turn

CAT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")
NORMED_TOGETHER = ("olmo2",)
"""A norm over the queries of all heads stands between: so it is of the keys."""
SHARED = [name for name, hand in FAMILIES.items() if hand.kv_heads < HEADS]


@pytest.fixture(scope="module", params=FAMILIES)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def hand(name):
    return FAMILIES[name]


@pytest.fixture(scope="module")
def model(name, of_family):
    return of_family(name)


def holds(model, name, hand, edits, wanted):
    """In either order; on the walk too, for which families differ by their kind alone."""
    for given in (edits, edits[::-1]):
        found = model.run(CAT, edits=given).logits
        assert float((found - wanted).abs().max()) <= hand.rounding
    if name in UNLIKE:
        on_both_paths(model, hand, edits, [CAT])


def alone(model, edit: str, site: str) -> np.ndarray:
    """What head 0 has at a site at two positions where this is the only edit."""
    return model.run(CAT, edits=[edit], keep=[site])[site].values[0][[2, 5]][:, [0]]


@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_an_edit_of_what_a_head_reads_goes_before_one_of_what_it_makes_of_it(
    model, name, hand, site
):
    read, made = f"scale(-1.5) L1.{site}_in.h0@{{2,5}}", f"add(0.5) L1.{site}.h0@{{2,5}}"
    shared = site != "q" and hand.kv_heads < HEADS
    if shared or (name in NORMED_TOGETHER and site != "v"):
        return  # an edit of what is shared goes first: the next test
    if name not in UNLIKE and hand.kv_heads == HEADS and turn(name) % 3 != "qkv".index(site):
        return  # by turns, in families that are like others
    of_it = alone(model, read, f"L1.{site}") + 0.5
    wanted = model.run(CAT, edits=[mt.replace(f"L1.{site}.h0@{{2,5}}", of_it)]).logits
    holds(model, name, hand, [made, read], wanted)
    without = model.run(CAT, edits=[made]).logits
    assert float((wanted - without).abs().max()) > 1e3 * hand.rounding


@pytest.mark.parametrize("name", NORMED_TOGETHER, indirect=True)
def test_where_queries_are_normed_together_what_a_head_reads_has_the_last_word(model, name, hand):
    """Head 0 attends by what it reads; the others hear the edit of its queries in their norm."""
    read, made = "scale(-1.5) L1.q_in.h0@{2,5}", "add(0.5) L1.q.h0@{2,5}"
    own = mt.replace("L1.z.h0@{2,5}", alone(model, read, "L1.z"))
    wanted = model.run(CAT, edits=[mt.edit(made), own]).logits
    holds(model, name, hand, [made, read], wanted)


@pytest.mark.parametrize("name", SHARED, indirect=True)
@pytest.mark.parametrize("site", ["k", "v"])
def test_where_heads_share_what_one_reads_has_the_last_word(model, name, hand, site):
    """Queries of head 0 see its own key at these positions; others see the edit of the key."""
    read, made = f"scale(-1.5) L1.{site}_in.h0", f"add(0.5) L1.{site}.h0"
    own = model.run(CAT, edits=[read], keep=["L1.z"])["L1.z"].values[0][:, [0]]
    wanted = model.run(CAT, edits=[mt.edit(made), mt.replace("L1.z.h0", own)]).logits
    holds(model, name, hand, [made, read], wanted)
