"""What the writers of a graph write in a pass: recorded, or told as the pass gets there."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.graph import Graph
from microtome.language.sites import site as find_site
from microtome.model.loaded import Loaded
from microtome.passes.calling import call_body
from microtome.passes.hooks import Visit, quiet, visited
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.prompts.tokens import Tokens

Take = Callable[[int, Float[Tensor, "row pos writer d_model"]], None]
"""Is given what some writers write, with the number of the first of them."""


def writing(graph: Graph, take: Take) -> Iterator[Visit]:
    """Visits that tell of everything that is written, in the order of a pass."""

    def told(first: int, headed: bool) -> Callable[[Tensor], None]:
        return lambda view: take(first, view if headed else view.unsqueeze(2))

    yield Visit((find_site("embed"), None), told(0, headed=False))
    for layer in range(graph.n_layers):
        first = graph.first_writer(layer)
        yield Visit((find_site("head_out"), layer), told(first, headed=True))
        yield Visit((find_site("mlp_out"), layer), told(first + graph.n_heads, headed=False))


def mixing(model: Loaded, take: Callable[[int, Tensor], None]) -> Iterator[Visit]:
    """Visits that tell, of each layer, what its heads add together before a norm of that."""
    anatomy, attn_out = model.anatomy, find_site("attn_out")

    def told(layer: int) -> Callable[[Tensor], None]:
        return lambda view: take(layer, view)

    for layer in range(anatomy.dims.n_layers):
        tap = replace(anatomy.mixed, module=anatomy.mixed.module.format(layer=layer))
        yield Visit((attn_out, layer), told(layer), tap=tap)


def resting(model: Loaded) -> list[Float[Tensor, " d_model"]]:
    """Per layer, what its heads add together, before a norm of that, if none writes anything:
    a bias."""
    anatomy, dims = model.anatomy, model.anatomy.dims
    z = torch.zeros(1, 1, dims.n_heads, dims.d_head, dtype=model.dtype, device=model.device)
    with torch.no_grad():
        return [anatomy.mixes(model.hf, layer, z)[0, 0] for layer in range(dims.n_layers)]


def normed(
    model: Loaded,
    layer: int,
    whole: Float[Tensor, "row pos d_model"],
    change: Float[Tensor, "row part pos d_model"],
) -> Float[Tensor, "row part pos d_model"]:
    """What comes of changes of what a layer's heads add together, behind the norm of that."""
    anatomy, hf = model.anatomy, model.hf
    with torch.no_grad():
        after: Tensor = anatomy.attention_normed(hf, layer, whole[:, None] + change)
        return after - anatomy.attention_normed(hf, layer, whole)[:, None]


def written(
    model: Loaded, graph: Graph, texts: Sequence[Tokens]
) -> Float[Tensor, "text writer pos d_model"]:
    """What everything writes in a clean pass of texts of one length."""
    length = len(texts[0].read)
    kept = torch.empty(
        (len(texts), len(graph.writers), length, graph.d_model),
        dtype=model.dtype,
        device=model.device,
    )

    def take(first: int, view: Tensor) -> None:
        kept[:, first : first + view.shape[2]] = view.transpose(1, 2)

    visits = [*writing(graph, take)]
    hf, anatomy = model.hf, model.anatomy
    with session(hf, anatomy), quiet(hf), visited(hf, anatomy, visits):
        call_body(hf, ids_of(texts, hf), use_cache=False)
    return kept
