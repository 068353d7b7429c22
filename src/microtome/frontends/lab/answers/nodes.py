"""Which nodes of the model's graph a cell is of: ``a5.h3``, ``m5``."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence

from microtome import Model, Prompt
from microtome.edits import edit as parsed
from microtome.errors import MicrotomeError
from microtome.language.regions import Region
from microtome.language.sites import Dimensions
from microtome.prompts.resolve import regions

PARTS = ("q", "k", "v")

_READ_BY = {"q": "q", "q_in": "q", "k": "k", "k_head": "k", "k_in": "k", "k_in_group": "k",
            "v": "v", "v_head": "v", "v_in": "v", "v_in_group": "v"}  # fmt: skip
"""Site → the one part that reads there; of other sites of a head all three do."""


def nodes_of(model: Model, prompt: Prompt, edit: str) -> tuple[str, ...]:
    """The nodes that an edit without stars is made at, in the order of a pass.

    Heads that share a key or a value are all of its group. The residual stream between blocks is
    no node. Of an edge it is what reads.

    Args:
        model: from `load`.
        prompt: the prompt, where a position in the address may be a word.
        edit: such as ``"zero L5.z.h3@-1"``.

    Raises:
        AddressError, EditError, PromptError: the edit names what is not there.

    >>> import microtome as mt
    >>> nodes_of(mt.load("nano"), mt.Prompt("Berlin is"), "zero L5.z.h{1,3}@-1")
    ('a5.h1', 'a5.h3')
    """
    dims, [encoded] = model.anatomy.dims, model.encode(prompt)
    where = regions(parsed(edit).lands, dims, encoded.tokens)
    return tuple(dict.fromkeys(node for region in where for node in _of(region, dims)))


def nodes_of_all(model: Model, prompt: Prompt, edits: Sequence[str]) -> tuple[str, ...]:
    """The nodes of several edits, each once; an edit that names nothing is of none.

    Whoever shows what the edits do says what is wrong with it.
    """
    found: dict[str, None] = {}
    for edit in edits:
        with contextlib.suppress(MicrotomeError):
            found |= dict.fromkeys(nodes_of(model, prompt, edit))
    return tuple(found)


def readers_of_all(model: Model, prompt: Prompt, edits: Sequence[str]) -> tuple[str, ...]:
    """What the nodes of several edits read by, each once.

    >>> import microtome as mt
    >>> readers_of_all(mt.load("nano"), mt.Prompt("Berlin is"), ["zero L1.k.h0", "zero L1.mlp_out"])
    ('a1.h0<k>', 'm1')
    """
    found: dict[str, None] = {}
    for edit in edits:
        for node in nodes_of_all(model, prompt, [edit]):
            found |= dict.fromkeys(readers_of(node, parsed(edit).lands.site.name))
    return tuple(found)


def _of(region: Region, dims: Dimensions) -> Iterator[str]:
    layer, axes = region.layer, region.site.axes
    if layer is None:
        yield "input" if region.site.name == "embed" else "logits"
    elif "head" in axes:
        yield from (f"a{layer}.h{head}" for head in region.indices[axes.index("head")])
    elif "kv_head" in axes:
        size = dims.n_heads // dims.n_kv_heads
        for shared in region.indices[axes.index("kv_head")]:
            yield from (f"a{layer}.h{shared * size + n}" for n in range(size))
    elif region.site.name == "attn_out":
        yield from (f"a{layer}.h{head}" for head in range(dims.n_heads))
    elif region.site.name.startswith("mlp"):
        yield f"m{layer}"


def readers_of(node: str, site: str = "") -> tuple[str, ...]:
    """By what a node reads: a head by its queries, keys and values.

    Args:
        node: its name.
        site: of the edit; one that only queries, keys or values are at leaves that one.

    >>> readers_of("a5.h3"), readers_of("a5.h3", "k"), readers_of("m5"), readers_of("input")
    (('a5.h3<q>', 'a5.h3<k>', 'a5.h3<v>'), ('a5.h3<k>',), ('m5',), ())
    """
    if node == "input":
        return ()
    if not node.startswith("a"):
        return (node,)
    parts = (_READ_BY[site],) if site in _READ_BY else PARTS
    return tuple(f"{node}<{part}>" for part in parts)


def head_of(node: str) -> tuple[int, int] | None:
    """Layer and head of a node, or of what reads for it; None where it is no head.

    >>> head_of("a5.h3"), head_of("a5.h3<q>"), head_of("m5")
    ((5, 3), (5, 3), None)
    """
    if not node.startswith("a"):
        return None
    layer, _, head = node.partition("<")[0][1:].partition(".h")
    return int(layer), int(head)


def writer_called(node: str) -> str:
    """What `Attribution.table` calls the part that a node is; empty for the logits.

    >>> writer_called("a5.h3"), writer_called("m5"), writer_called("input")
    ('L5.head_out.h3', 'L5.mlp_out', 'embed')
    """
    head = head_of(node)
    if head is not None:
        return f"L{head[0]}.head_out.h{head[1]}"
    return {"input": "embed", "logits": ""}.get(node, f"L{node[1:]}.mlp_out")
