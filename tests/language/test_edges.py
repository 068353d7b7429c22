"""Edges as addresses: what is read, printed back, and refused."""

from __future__ import annotations

import pytest

import microtome as mt
from microtome.errors import AddressError
from microtome.language.addresses import parse
from microtome.language.edges import Edge, parse_edge, where

TEXTS = (
    "L9.z.h6 -> L10.q_in.h0",
    "L*.z.h* -> L*.q_in.h*",
    "L*.mlp_out -> final_in",
    "embed -> L*.v_in.h*@-1",
    "L*.head_out.h{1,3} -> L*.mlp_in@*",
    "L*.z.h*@subject -> L*.k_in.h2",
    'L1.z@"->" -> L2.mlp_in',
    "L*.attn_out as heads -> L*.mlp_in",
    "L*.z.h* -> L*.q_in.h*.d3@2: as other",
    "L5.z.h5 => L9.z.h9",
    "L*.z.h*@* =head=> L9.v_in.h9@*",
    "embed =all=> L:.q_in",
)


@pytest.mark.parametrize("text", TEXTS)
def test_a_text_is_read_and_printed_back(text):
    edge = where(text)
    assert str(edge) == text
    assert where(str(edge)) == edge
    assert mt.edit(f"scale(0.5) {text}") == mt.scale(text, 0.5)
    assert str(mt.scale(text, 0.5)) == f"scale(0.5) {text}"


def test_blanks_around_the_arrow_are_not_needed():
    assert parse_edge("L9.z.h6->L10.q_in.h0") == parse_edge("L9.z.h6  ->  L10.q_in.h0")


def test_stars_of_the_writer_are_axes_of_their_own():
    assert where("L*.z.h* -> L*.q_in.h*@*").stars == (
        *("from_layer", "from_head", "layer", "head", "pos"),
    )
    assert where("L*.z.h*@* -> L*.q_in.h*").stars == (
        *("from_layer", "from_head", "from_pos", "layer", "head"),
    )
    assert where("L*.mlp_out as a -> L*.mlp_in as b").stars == ("a_layer", "b_layer")


def test_both_sides_have_the_positions_of_either():
    for text in ("L1.z.h2@3 -> L2.q_in.h0", "L1.z.h2 -> L2.q_in.h0@3", "L1.z.h2@3 -> L2.q_in.h0@3"):
        edge = parse_edge(text)
        assert (str(edge.share), str(edge.heard)) == ("L1.head_out.h2@3 as from", "L2.q_in.h0@3")
    path = parse_edge("L1.z.h2@3 => L2.q_in.h0@4")
    assert (str(path.share), str(path.heard)) == ("L1.head_out.h2@3 as from", "L2.q_in.h0@4")


def test_a_path_through_nothing_is_the_edge():
    assert mt.edge("L5.z.h5", "L9.q_in.h9", via=()) == parse_edge("L5.z.h5 -> L9.q_in.h9")
    assert mt.edge("L5.z.h5", "L9.z.h9", via=("mlp", "head")).via == ("head", "mlp")
    assert mt.edge("L5.z.h5", "L9.z.h9", via="mlp") == parse_edge("L5.z.h5 => L9.z.h9")


def test_stars_are_fixed_on_both_sides():
    fixed = where("L*.z.h* -> L*.q_in.h*").fix(from_layer=1, from_head=2, layer=3, head=0)
    assert fixed == Edge(parse("L1.z.h2"), parse("L3.q_in.h0"))
    assert fixed.stars == ()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("L5.q.h3 -> L9.q_in", r"L5\.q\.h3 is no writer.*embed, z, head_out.*L5\.mlp_out"),
        ("L5.z.h5 -> L9.z.h9", r"L9\.z\.h9 is no reader.*q_in, k_in.*L5\.q_in\.h3.*path"),
        ("L5.z.h5 => L9.mlp_out", r"L9\.mlp_out is no reader.*final_in, z"),
        ("L5.z.h5.d3 -> L9.q_in", r"where they are read: write \.d at the reader"),
        ("L1.z -> L2.q_in -> L3.q_in", "it has 2 arrows. Form: WRITER -> READER"),
        ("-> L2.q_in", "a side is empty"),
        ("L5.z.h5@3 -> L9.q_in@2", "positions once: give them on one side.*attention"),
        ("L5.z.h5@* -> L9.q_in@*", "positions once"),
        ("L5.z.h5 =mpl=> L9.q_in", r"via='mpl'.*head, mlp, or 'all'.*Did you mean 'mlp'"),
        ("L*.z as a -> L*.mlp_in as a", "both sides call their stars 'a'"),
        ("L1.z.n2 -> L2.q_in", "no units 'n'"),
    ],
)
def test_what_is_no_edge_is_refused_by_name(text, message):
    with pytest.raises(AddressError, match=message):
        where(text)
