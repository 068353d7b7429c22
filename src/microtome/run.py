"""One hooked forward pass: the reference path, and the only place that owns hooks.

A pass is a list of visits. Each says at which site of which layer it wants to be called, and gets
that site's values as a view ``[batch, *axes]``: a reader copies what it keeps, a writer changes
the view. Hooks exist inside a ``with`` block only. The module's weights, its own buffers and the
user's hooks are never touched; a pass without writers is the Hugging Face module's own, bit for
bit.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

from microtome.errors import InertEditError, MicrotomeError
from microtome.model.anatomy import Anatomy
from microtome.model.call import Call, cache_name
from microtome.model.families.family import Tap
from microtome.model.placed import device_of
from microtome.prompts import Tokens
from microtome.regions import Column, Region, Regions
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
    points: dict[tuple[str, str], list[tuple[Tap, Visit]]] = defaultdict(list)
    for visit in sorted(visits, key=lambda v: (anatomy.order(*v.place), not v.writes)):
        tap = anatomy.tap(*visit.place)
        points[tap.module, tap.side].append((tap, visit))

    made: Counter[Visit] = Counter()
    rows: list[torch.Size] = []  # batch and positions, noted where a block goes on without them

    def see(stops: Sequence[tuple[Tap, Visit]], full: Tensor) -> Tensor:
        writes = any(visit.writes for _, visit in stops)
        in_place = any(tap.in_place for tap, _ in stops)
        full = full.clone() if writes and not in_place else full
        for tap, visit in stops:
            whole = full.view(*rows[-1], -1) if tap.flat else full
            view = tap.view(whole, anatomy.dims)
            visit.act(view)
            if visit.writes and tap.put is not None:
                tap.put(whole, view, anatomy.dims)
            made[visit] += 1
        return full

    def note(full: Tensor) -> Tensor:
        rows[:] = [full.shape[:2]]
        return full

    handles = []
    try:
        if any(tap.flat for stops in points.values() for tap, _ in stops):
            blocks = (anatomy.block(hf, layer) for layer in range(anatomy.dims.n_layers))
            handles += [_install(block, "input", note) for block in blocks]
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


@contextmanager
def outputs_of(hf: PreTrainedModel, paths: Iterable[str]) -> Iterator[dict[str, Any]]:
    """Within this block, what these modules return, as it is, by their paths."""
    seen: dict[str, Any] = {}

    def keep(path: str, _: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen[path] = output

    handles = []
    try:
        for path in paths:
            module = hf.get_submodule(path)
            handles.append(module.register_forward_hook(partial(keep, path)))
        yield seen
    finally:
        for handle in handles:
            handle.remove()


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


@contextmanager
def only_at(module: nn.Module, positions: Sequence[int]) -> Iterator[None]:
    """Within this block, a module that takes each position by itself runs at these alone.

    Its output ``[batch, pos, …]`` is zero at the others, where nobody may read it.
    """
    length = 0

    def cut(_: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal length
        length = args[0].shape[1]
        return tuple(x[:, list(positions)] for x in args)

    def spread(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
        full = output.new_zeros(output.shape[0], length, *output.shape[2:])
        full[:, list(positions)] = output
        return full

    handles = [module.register_forward_pre_hook(cut), module.register_forward_hook(spread)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def once_for_alike(
    attention: nn.Module, out_proj: nn.Module, prompts: int, apart: int, alike: int
) -> Iterator[None]:
    """Within this block, attention runs once for rows that are alike, up to its output projection.

    A batch has ``apart + alike`` rows for each prompt, of which the last ones are equal.
    """

    def fewer(x: Tensor) -> Tensor:
        rows = x.view(prompts, apart + alike, *x.shape[1:])
        return rows[:, : apart + 1].flatten(0, 1).contiguous()

    def more(x: Tensor) -> Tensor:
        rows = x.view(prompts, apart + 1, *x.shape[1:])
        last = rows[:, apart:].expand(-1, alike, *x.shape[1:])
        return torch.cat([rows[:, :apart], last], dim=1).flatten(0, 1).contiguous()

    handles = [_install(attention, "input", fewer), _install(out_proj, "input", more)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


# --------------------------------------------------------------------------------------- reading


def index(
    regions: Regions, device: torch.device, rows: Column | None = None, start: int = 0
) -> tuple[Tensor, ...]:
    """The indices of regions in a view ``[batch, *axes]``.

    ``view[index(…)]`` is ``[cell, *region]``: region i of row ``rows[i]``; of row 0 where no rows
    are given. ``start`` is the position at which the view begins.
    """
    site = regions.site
    rank = len(site.axes)
    rows = np.zeros(1, dtype=np.int64) if rows is None else rows
    parts = [torch.from_numpy(rows).to(device).view(-1, *[1] * rank)]
    for number, (axis, column) in enumerate(zip(site.axes, regions.columns, strict=True)):
        shape = [len(column)] + [1] * rank
        shape[1 + number] = column.shape[1]
        own = column - start if start and axis in POSITIONS else column
        parts.append(torch.from_numpy(own).to(device).view(shape))
    return tuple(parts)


def reader(region: Region, keep: Callable[[Tensor], None]) -> Visit:
    """A visit that hands a copy of a region's values ``[1, *region]`` to ``keep``."""
    where = Regions.of(region)
    return Visit((region.site, region.layer), lambda view: keep(view[index(where, view.device)]))


@dataclass(frozen=True)
class Piece:
    """A site of a layer from one position to another, both included: what is to be recorded."""

    place: Place
    first: int
    last: int

    def of(self, view: Tensor) -> Tensor:
        """A copy of this piece of a site's values ``[batch, *axes]``."""
        return view.narrow(1, self.first, self.last + 1 - self.first).clone()


def record(
    hf: PreTrainedModel, anatomy: Anatomy, texts: Sequence[Tokens], pieces: Iterable[Piece]
) -> dict[Place, Tensor]:
    """Clean activations ``[text, *axes]``, from one pass of texts of one length without edits."""
    kept: dict[Place, Tensor] = {}
    visits = [_keeper(piece, kept) for piece in pieces]
    with quiet(hf), visited(hf, anatomy, visits):
        ids = ids_of(texts, hf)
        if any(visit.place[0].name == "logits" for visit in visits):
            hf(input_ids=ids, use_cache=False)
        else:
            hf.base_model(input_ids=ids, use_cache=False)
    return kept


def module_output(hf: PreTrainedModel, tokens: Tokens, path: str) -> Float[Tensor, "1 pos d"]:
    """What a module gives in a clean pass of one text: the tensor whole that sites are parts of."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept.append(output.clone())

    handle = hf.get_submodule(path).register_forward_hook(keep)
    try:
        with quiet(hf):
            hf.base_model(input_ids=ids_of([tokens], hf), use_cache=False)
    finally:
        handle.remove()
    [output] = kept
    return output


def _keeper(piece: Piece, kept: dict[Place, Tensor], rows: slice = slice(None)) -> Visit:
    return Visit(piece.place, lambda view: kept.__setitem__(piece.place, piece.of(view[rows])))


def ids_of(texts: Sequence[Tokens], hf: PreTrainedModel) -> Int[Tensor, "text pos"]:
    """The token ids of texts of one length, on the model's device."""
    return torch.tensor([tokens.ids for tokens in texts], device=device_of(hf))


@dataclass(frozen=True)
class Trace:
    """One clean pass of texts of one length, as much of it as is needed to go on from its middle.

    Attributes:
        final: after the final norm, ``[text, pos, d_model]``: what the unembedding reads.
        inputs: what entered each block, ``[text, pos, d_model]``, from position ``start`` on.
        keys, values: of each block, ``[text, kv_head, pos, d_head]``, as attention saw them.
        calls: with what else each block was called.
        start: the first position of the inputs.
        kept: whole sites that were asked for, ``[text, *axes]``.
        beside: what was asked for of the riders, ``[rider, *axes]``.
    """

    final: Float[Tensor, "text pos d_model"]
    inputs: tuple[Float[Tensor, "text own d_model"], ...]
    keys: tuple[Float[Tensor, "text kv_head pos d_head"], ...]
    values: tuple[Float[Tensor, "text kv_head pos d_head"], ...]
    calls: tuple[Call, ...]
    start: int
    kept: Mapping[Place, Tensor]
    beside: Mapping[Place, Tensor]


def trace(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    texts: Sequence[Tokens],
    start: int = 0,
    places: Iterable[Place] = (),
    riders: Sequence[Tokens] = (),
    pieces: Iterable[Piece] = (),
) -> Trace:
    """One clean pass of texts of one length, recorded; these places of it whole.

    Riders are texts of the same length that go along, so that weights are read once for all; of
    them only these pieces are recorded.
    """
    layers = range(anatomy.dims.n_layers)
    entry = find_site("resid_pre")
    last = len(texts[0]) - 1
    inputs: dict[Place, Tensor] = {}
    kept: dict[Place, Tensor] = {}
    beside: dict[Place, Tensor] = {}
    own, others = slice(len(texts)), slice(len(texts), None)
    visits = [_keeper(Piece((entry, layer), start, last), inputs, own) for layer in layers]
    visits += [_keeper(Piece(place, 0, last), kept, own) for place in dict.fromkeys(places)]
    visits += [_keeper(piece, beside, others) for piece in pieces]
    # Without a configuration it keeps all of them, in layers with a sliding window as well.
    cache = DynamicCache()
    with quiet(hf), visited(hf, anatomy, visits), _calls(hf, anatomy) as calls:
        ids, taken = ids_of([*texts, *riders], hf), {cache_name(hf.base_model): cache}
        output = hf.base_model(input_ids=ids, use_cache=True, **taken)
    return Trace(
        final=output.last_hidden_state[own],
        inputs=tuple(inputs[entry, layer] for layer in layers),
        keys=tuple(cache.layers[layer].keys[own] for layer in layers),
        values=tuple(cache.layers[layer].values[own] for layer in layers),
        calls=tuple(calls[layer] for layer in layers),
        start=start,
        kept=kept,
        beside=beside,
    )


@contextmanager
def _calls(hf: PreTrainedModel, anatomy: Anatomy) -> Iterator[dict[int, Call]]:
    """Within this block, with what each block is called is written down."""
    made: dict[int, Call] = {}

    def write_down(layer: int, block: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        made[layer] = Call.of(block, args, kwargs)

    handles = []
    try:
        for layer in range(anatomy.dims.n_layers):
            block = anatomy.block(hf, layer)
            hook = partial(write_down, layer)
            handles.append(block.register_forward_pre_hook(hook, with_kwargs=True))
        yield made
    finally:
        for handle in handles:
            handle.remove()
