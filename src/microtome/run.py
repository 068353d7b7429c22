"""One hooked forward pass: the reference path, and the only place that owns hooks.

A pass is a list of visits. Each says at which site of which layer it wants to be called, and gets
that site's values as a view ``[batch, *axes]``: a reader copies what it keeps, a writer changes
the view. Hooks exist inside a ``with`` block only. The module's weights, its own buffers and the
user's hooks are never touched; a pass without writers is the Hugging Face module's own, bit for
bit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.addresses import Region
from microtome.errors import InertEditError, MicrotomeError
from microtome.model.anatomy import Anatomy, Tap
from microtome.prompts import Tokens
from microtome.sites import POSITIONS, Site
from microtome.sites import site as find_site

Place = tuple[Site, int | None]
"""A site of a layer (None where the site is in no layer)."""


@dataclass(frozen=True)
class Visit:
    """Something to do at one site of one layer, once, when the pass gets there.

    ``act`` receives the site's values as a view ``[batch, *axes]``; only where ``writes`` is true
    may it change them.
    """

    place: Place
    act: Callable[[Tensor], None]
    writes: bool = False


# ----------------------------------------------------------------------------------- the hooks


@contextmanager
def hooked(
    hf: PreTrainedModel, anatomy: Anatomy, visits: Iterable[Visit]
) -> Iterator[Counter[Visit]]:
    """Within this block, a forward pass of the model makes these visits.

    Visits are made in the order of the forward pass; at one place the writers come first, in the
    order given, and then the readers. Yields how often each visit was made.
    """
    order = {place: n for n, place in enumerate(anatomy.places())}
    points: dict[tuple[str, str], list[tuple[Tap, Visit]]] = defaultdict(list)
    for visit in sorted(visits, key=lambda v: (order[v.place], not v.writes)):
        tap = anatomy.tap(*visit.place)
        points[tap.module, tap.side].append((tap, visit))

    made: Counter[Visit] = Counter()

    def see(stops: Sequence[tuple[Tap, Visit]], full: Tensor) -> Tensor:
        writes = any(visit.writes for _, visit in stops)
        in_place = any(tap.in_place for tap, _ in stops)
        full = full.clone() if writes and not in_place else full
        for tap, visit in stops:
            visit.act(tap.view(full, anatomy.dims))
            made[visit] += 1
        return full

    handles = []
    try:
        for (path, side), stops in points.items():
            module = hf.get_submodule(path)
            handles.append(_install(module, side, partial(see, stops)))
        yield made
    finally:
        for handle in handles:
            handle.remove()


def _install(
    module: nn.Module, side: str, see: Callable[[Tensor], Tensor]
) -> torch.utils.hooks.RemovableHandle:
    def on_input(_: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if args:
            return (see(args[0]), *args[1:]), kwargs
        return args, {**kwargs, "hidden_states": see(kwargs["hidden_states"])}

    def on_output(_: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        if isinstance(output, Tensor):
            return see(output)
        if isinstance(output, tuple):
            return (see(output[0]), *output[1:])
        return type(output)(**{**output, "logits": see(output["logits"])})

    if side == "input":
        return module.register_forward_pre_hook(on_input, with_kwargs=True)
    return module.register_forward_hook(on_output)


def forward(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    ids: Int[Tensor, "batch pos"],
    visits: Sequence[Visit] = (),
) -> Float[Tensor, "batch pos vocab"]:
    """The logits of one pass of the unmodified module, with these visits made on its way.

    Raises:
        MicrotomeError: the model is in training mode, where dropout makes passes differ.
        InertEditError: a visit was not made exactly once.
    """
    with quiet(hf), visited(hf, anatomy, visits):
        logits: Tensor = hf(input_ids=ids, use_cache=False).logits
    return logits


@contextmanager
def quiet(hf: PreTrainedModel) -> Iterator[None]:
    """Within this block nothing is recorded for gradients.

    Raises:
        MicrotomeError: the model, or a part of it, is in training mode.
    """
    if any(part.training for part in hf.modules()):
        raise MicrotomeError(
            "The model, or a part of it, is in training mode, where dropout makes every pass "
            "different: call model.hf.eval() first."
        )
    with torch.no_grad():
        yield


@contextmanager
def visited(hf: PreTrainedModel, anatomy: Anatomy, visits: Sequence[Visit]) -> Iterator[None]:
    """`hooked`, with proof at its end that each visit was made once.

    Raises:
        InertEditError: one was not.
    """
    with hooked(hf, anatomy, visits) as made:
        yield
    for visit in visits:
        if made[visit] != 1:
            site, layer = visit.place
            raise InertEditError(
                f"The hook at {site} of layer {layer} fired {made[visit]} times in one pass, "
                "instead of once: this model does not run that part as its family does."
            )


# --------------------------------------------------------------------------------------- reading


def index(
    regions: Sequence[Region], device: torch.device, rows: Sequence[int] = (0,), start: int = 0
) -> tuple[Tensor, ...]:
    """The indices of regions of one site and shape in a view ``[batch, *axes]``.

    ``view[index(…)]`` is ``[cell, *region]``: region i of row ``rows[i]``; one row, or one region,
    serves for all. ``start`` is the position at which the view begins.
    """
    site = regions[0].site
    rank = len(site.axes)
    parts = [torch.tensor(rows, device=device).view(-1, *[1] * rank)]
    for number, axis in enumerate(site.axes):
        chosen = [region.indices[number] for region in regions]
        alike = all(indices == chosen[0] for indices in chosen)
        column = torch.tensor(chosen[:1] if alike else chosen, device=device)
        shape = [len(column)] + [1] * rank
        shape[1 + number] = column.shape[1]
        parts.append(column.view(shape) - (start if axis in POSITIONS else 0))
    return tuple(parts)


def reader(region: Region, keep: Callable[[Tensor], None]) -> Visit:
    """A visit that hands a copy of a region's values ``[1, *region]`` to ``keep``."""
    return Visit((region.site, region.layer), lambda view: keep(view[index([region], view.device)]))


def record(
    hf: PreTrainedModel, anatomy: Anatomy, tokens: Tokens, places: Iterable[Place]
) -> dict[Place, Tensor]:
    """The clean activations ``[1, *axes]`` of whole sites, from one pass without edits."""
    kept: dict[Place, Tensor] = {}

    def keeper(place: Place) -> Visit:
        return Visit(place, lambda view: kept.__setitem__(place, view.clone()))

    forward(hf, anatomy, ids_of(tokens, hf), [keeper(place) for place in dict.fromkeys(places)])
    return kept


def ids_of(tokens: Tokens, hf: PreTrainedModel) -> Int[Tensor, "1 pos"]:
    """A text's token ids as a batch of one, on the model's device."""
    return torch.tensor([tokens.ids], device=hf.device)


@dataclass(frozen=True)
class Trace:
    """One clean pass, as much of it as is needed to go on from its middle.

    Attributes:
        logits: ``[1, pos, vocab]``.
        inputs: what entered each block, ``[1, pos, d_model]``.
        keys, values: of each block, ``[1, kv_head, pos, d_head]``, as attention saw them.
    """

    logits: Float[Tensor, "1 pos vocab"]
    inputs: tuple[Float[Tensor, "1 pos d_model"], ...]
    keys: tuple[Float[Tensor, "1 kv_head pos d_head"], ...]
    values: tuple[Float[Tensor, "1 kv_head pos d_head"], ...]


def trace(hf: PreTrainedModel, anatomy: Anatomy, tokens: Tokens) -> Trace:
    """One clean pass of a text, recorded."""
    inputs: dict[int, Tensor] = {}

    def keeper(layer: int) -> Visit:
        place = (find_site("resid_pre"), layer)
        return Visit(place, lambda view: inputs.__setitem__(layer, view.clone()))

    layers = range(anatomy.dims.n_layers)
    with quiet(hf), visited(hf, anatomy, [keeper(layer) for layer in layers]):
        output = hf(input_ids=ids_of(tokens, hf), use_cache=True)
    cache = output.past_key_values.layers
    return Trace(
        logits=output.logits,
        inputs=tuple(inputs[layer] for layer in layers),
        keys=tuple(cache[layer].keys for layer in layers),
        values=tuple(cache[layer].values for layer in layers),
    )
