"""Attention weights of a layer, computed again for cells that change its queries or keys."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.engines.approximate.stretch import TOKENS, Stretch
from microtome.language.regions import Regions
from microtome.language.sites import site as find_site
from microtome.model.devices import onto
from microtome.passes.hooks import Visit, quiet, visited
from microtome.passes.session import session


def attention_of(
    stretch: Stretch, application: Application
) -> Iterator[tuple[Tensor, Float[Tensor, "cell head query key"]]]:
    """The weights of an edit's layer, of some of its cells at a time, with their prompts' rows.

    The model's own block runs with the edit made in it, from the clean run's stream: so rotary
    embeddings, norms and masks are what they are.
    """
    regions, layer = application.regions, application.regions.layer
    assert layer is not None, "attention is in layers"
    assert application.rows is not None, "the walk's edits know their rows"
    hf, anatomy, clean = stretch.model.hf, stretch.model.anatomy, stretch.trace
    stream = clean.inputs[layer]
    most = max(1, TOKENS // stream.shape[1])
    for first in range(0, regions.cells, most):
        some = slice(first, first + most)
        rows = onto(stream.device, application.rows[some])
        kept: list[Tensor] = []
        edit = _part(application, some, len(rows))
        visits = [edit.visit(), Visit((find_site("pattern"), layer), _keeping(kept))]
        with session(hf, anatomy), quiet(hf), visited(hf, anatomy, visits):
            anatomy.resume(hf, layer, stream[rows], clean.calls[layer].whole(len(rows)))
        yield rows, kept[0]


def _keeping(kept: list[Tensor]) -> Callable[[Tensor], None]:
    return lambda view: kept.append(view.clone())


def _part(application: Application, some: slice, cells: int) -> Application:
    """The same for some of its cells, each in a row of its own."""
    regions = application.regions
    columns = tuple(c if len(c) == 1 else c[some] for c in regions.columns)
    source = application.source
    return replace(
        application,
        regions=Regions(regions.site, regions.layer, cells, columns),
        keys=application.keys[some],
        source=source if source is None or len(source) == 1 else source[some],
        rows=np.arange(cells),
        changed=None,
        squares=None,
    )
