"""The graph's names: those of EAP-IG and MIB, each edge once."""

from __future__ import annotations

import pytest
from transformers import BertConfig, GPT2Config, GPTJConfig, LlamaConfig

import microtome as mt
from microtome.errors import AddressError
from microtome.language.nodes import KINDS


def counted(layers: int, heads: int, parallel: bool) -> int:
    """Brute force: every pair of what writes and what reads, by when it does."""
    written = [-1.0] + [la + 0.2 for la in range(layers) for _ in range(heads)]
    written += [la + 0.4 for la in range(layers)]
    read = [la + 0.1 for la in range(layers) for _ in range(3 * heads)]
    read += [la + (0.1 if parallel else 0.3) for la in range(layers)] + [float(layers)]
    return sum(one < other for one in written for other in read)


def test_the_edges_of_gpt2_small():
    edges = mt.edges(GPT2Config())
    assert (len(edges.nodes), len(edges)) == (158, 32_491)
    assert len(set(edges)) == len(edges)
    for name in ("input->a0.h0<q>", "a0.h1->m3", "m11->logits", "a0.h0->a11.h11<v>", "m0->m1"):
        assert name in edges
        assert edges[edges.index(name)] == name
    for name in ("a0.h0->a0.h1<q>", "m3->m3", "logits->m0", "a3.h0->m2", "a0.h1->a3"):
        assert name not in edges
    assert set(edges.writers) == set(edges.nodes) - {"logits"}


@pytest.mark.parametrize("layers", [1, 3])
@pytest.mark.parametrize("heads", [1, 4])
def test_each_shape_is_counted_right(layers, heads):
    plain = GPT2Config(n_layer=layers, n_head=heads, n_embd=8)
    grouped = LlamaConfig(
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=1, hidden_size=8
    )
    parallel = GPTJConfig(n_layer=layers, n_head=heads, n_embd=8, rotary_dim=2)
    for config in (plain, grouped, parallel):
        edges = mt.edges(config)
        assert len(edges) == counted(layers, heads, config is parallel)
        spanned = [n for kind in edges.kinds for n in kind.names(edges.dims).ravel() if n]
        assert sorted(spanned) == sorted(edges)


def test_a_name_is_an_address_and_a_point_of_its_sweep():
    edges = mt.edges(GPT2Config(n_layer=3, n_head=2, n_embd=8))
    assert str(edges.edge("input->a0.h1<k>")) == "embed -> L0.k_in.h1"
    assert str(edges.edge("m0->logits")) == "L0.mlp_out -> final_in"
    for kind in KINDS:
        names = kind.names(edges.dims)
        stars = mt.edit(f"zero {kind.text}").address.stars
        assert names.ndim == len(stars)
        for name in filter(None, names.ravel()):
            [at] = zip(*(names == name).nonzero(), strict=True) if names.ndim else [()]
            fixed = mt.edit(f"zero {kind.text}").address.fix(
                **{star: int(n) for star, n in zip(stars, at, strict=True)}
            )
            assert fixed == edges.edge(name)


def test_what_is_no_edge_is_refused_by_name():
    edges = mt.edges(GPT2Config(n_layer=2, n_head=2, n_embd=8))
    with pytest.raises(AddressError, match=r"No edge is called 'a0.h1->m9'.*a1\.h1.*m1"):
        edges.edge("a0.h1->m9")
    with pytest.raises(AddressError, match="no edges: this model norms the residual stream"):
        mt.edges(BertConfig())
