"""Edges in every family: against hooks written by hand, and both engines against each other."""

from __future__ import annotations

import numpy as np
import pytest

import microtome as mt
from families.both import on_both_paths
from microtome.errors import AddressError
from oracles import edges as by_hand
from oracles.edges import OPS, Node
from oracles.families import FAMILIES, turn
from oracles.readers import Oracle

CAT = mt.Prompt(
    "The cat sat on the mat, and",
    donor="The cat sat on the dog, and",
    target=" cat",
    contrast=" dog",
)
EXACT = 1e-11
SUMS = [name for name in FAMILIES if name not in ("bert", "roberta", "distilbert")]
SHAPES = ("llama", "gemma2", "mixtral", "falcon")
"""Grouped, post-norm, experts, parallel with shared keys."""


def sample(last: int) -> list[tuple[Node, Node]]:
    """Edges of each kind, from the input to behind the last layer."""
    return [
        (Node("input"), Node("q", 1, 2)),
        (Node("head", 0, 1), Node("k", 1, 3)),
        (Node("head", last - 1, 3), Node("v", last, 0)),
        (Node("mlp", 0), Node("v", 1, 1)),
        (Node("head", 0, 2), Node("mlp", 1)),
        (Node("mlp", last - 1), Node("mlp", last)),
        (Node("head", last, 0), Node("logits")),
        (Node("mlp", last), Node("logits")),
    ]


def oracle_of(model, hand):
    [one] = model.encode(CAT)
    return by_hand.Edges(Oracle(model.hf, hand, one.tokens.ids), one.donor.ids)


@pytest.mark.parametrize("name", SUMS)
def test_an_edge_is_edited_as_by_hand_and_nothing_else_is(name, of_family):
    model, hand = of_family(name), FAMILIES[name]
    oracle = oracle_of(model, hand)
    exact = EXACT if hand.rounding <= 1e-9 else hand.rounding
    clean = oracle.here.run().logits
    edges = sample(hand.layers - 1)
    for number in range(turn(name) % 2, len(edges), 2):  # every other family has the other half
        writer, reader = edges[number]
        text, op = list(OPS.items())[(number + len(name)) % len(OPS)]
        positions = (None, [4, 6])[number // 2 % 2]
        place = "" if positions is None else "@{4,6}"
        change = oracle.change(writer, op)
        wanted = oracle.cell(change, reader, positions)
        edit = f"{text} {writer.writes} -> {reader.reads}{place}"
        found = model.run(CAT, edits=[edit])
        assert float((found.logits[0] - wanted.logits).abs().max()) <= exact, edit
        moved = float((wanted.logits - clean).abs().max())
        assert moved > 1e-7 or text == "patch", edit
        [receipt] = found.receipts
        wide = model.anatomy.dims.d_model * len(positions or CAT_TOKENS)
        assert receipt.selected == wide
        size = np.linalg.norm(change[positions or slice(None)])
        assert receipt.norm == pytest.approx(size, rel=1e-6)


CAT_TOKENS = range(8)

MAPS = (
    "patch L*.z.h1 -> L*.q_in.h*",
    "zero L*.z.h* -> L*.k_in.h2",
    "patch L*.mlp_out -> L*.v_in.h*",
    "patch embed -> L*.mlp_in",
    "scale(-0.5) L*.z.h1@* -> L*.mlp_in",
    "patch L*.mlp_out -> L*.mlp_in",
    'noise(std=0.5, how="add") L*.z.h* -> final_in',
)


@pytest.mark.parametrize("name", SUMS)
def test_the_walk_equals_the_reference_path(name, of_family):
    edit = MAPS[turn(name) % len(MAPS)]
    on_both_paths(of_family(name), FAMILIES[name], edit, [CAT])


@pytest.mark.slow
@pytest.mark.parametrize("name", SHAPES)
def test_every_edge_of_each_shape_of_block_is_as_by_hand(name, of_family):
    """By hand each edge in one of the shapes."""
    model, hand = of_family(name), FAMILIES[name]
    oracle, edges = oracle_of(model, hand), by_hand.all_edges(hand)
    assert len(edges) == len(mt.edges(model))
    effects = {
        kind.text: mt.sweep(model, CAT, f"patch {kind.text}", metrics=["logit_diff"], verify=0)
        for kind in mt.edges(model).kinds
    }
    found = {}
    for kind in mt.edges(model).kinds:
        names = kind.names(model.anatomy.dims)
        values = effects[kind.text].data["logit_diff"].values[0]
        found |= dict(zip(names[names != ""], values[names != ""], strict=True))
    [one] = model.encode(CAT)
    mine = edges[SHAPES.index(name) :: len(SHAPES)]
    changes = {writer: oracle.change(writer, OPS["patch"]) for writer, _ in mine}
    for writer, reader in mine:
        logits = oracle.cell(changes[writer], reader).logits[-1]
        wanted = float(logits[one.target] - logits[one.contrast])
        assert abs(found[name_of(writer, reader)] - wanted) <= max(hand.rounding, 1e-10)


def name_of(writer: Node, reader: Node) -> str:
    left = {"input": "input", "mlp": f"m{writer.layer}"}.get(
        writer.kind, f"a{writer.layer}.h{writer.head}"
    )
    right = {"logits": "logits", "mlp": f"m{reader.layer}"}.get(
        reader.kind, f"a{reader.layer}.h{reader.head}<{reader.kind}>"
    )
    return f"{left}->{right}"


def test_a_stream_that_is_normed_has_no_edges(bert64):
    edit = "zero L0.z.h1 -> L1.q_in.h0"
    with pytest.raises(AddressError, match=r"norms the residual stream itself.*no edges"):
        bert64.run("pay no attention to that [MASK]", edits=[edit])
