"""Clean passes, recorded: pieces of sites, and all that is needed to go on from the middle."""

from __future__ import annotations

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

from microtome.language.regions import Column, Region, Regions
from microtome.language.sites import OWNERS, owner
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.call import Call, cache_name
from microtome.model.devices import onto
from microtome.model.placement import device_of
from microtome.passes.calling import call, call_body
from microtome.passes.guests import Act, Side
from microtome.passes.hooks import Place, Visit, quiet, visited
from microtome.passes.session import Session, session
from microtome.prompts.tokens import Tokens


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
    parts = [onto(device, rows).view(-1, *[1] * rank)]
    for number, (axis, column) in enumerate(zip(site.axes, regions.columns, strict=True)):
        shape = [len(column)] + [1] * rank
        shape[1 + number] = column.shape[1]
        own = column - start if start and axis in OWNERS else column
        parts.append(onto(device, own).view(shape))
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
        axis = 1 + owner(self.place[0].axes)
        return _copy(view.narrow(axis, self.first, self.last + 1 - self.first))


def _copy(view: Tensor) -> Tensor:
    """A copy that takes no more memory than a view: what is one for all heads stays one."""
    once = view
    for axis, stride in enumerate(view.stride()):
        once = once if stride else once.narrow(axis, 0, 1)
    return once.clone().expand_as(view)


def record(
    hf: PreTrainedModel,
    anatomy: Anatomy,
    texts: Sequence[Tokens],
    pieces: Iterable[Piece],
    edits: Sequence[Visit] = (),
) -> dict[Place, Tensor]:
    """Activations ``[text, *axes]``, from one pass of texts of one length: clean, unless edited."""
    kept: dict[Place, Tensor] = {}
    visits = [*edits, *(_keeper(piece, kept) for piece in pieces)]
    with session(hf, anatomy), quiet(hf), visited(hf, anatomy, visits):
        ids = ids_of(texts, hf)
        if any(visit.place[0].name == "logits" for visit in visits):
            call(hf, ids, use_cache=False)
        else:
            call_body(hf, ids, use_cache=False)
    return kept


def module_output(hf: PreTrainedModel, tokens: Tokens, path: str) -> Float[Tensor, "1 pos d"]:
    """What a module gives in a clean pass of one text: the tensor whole that sites are parts of."""
    kept: list[Tensor] = []

    def keep(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
        kept.append(output.clone())

    with session(hf, Anatomy.of(hf)) as own, quiet(hf):
        own.hook([(hf.get_submodule(path), "output", keep)])
        call_body(hf, ids_of([tokens], hf), use_cache=False)
    [output] = kept
    return output


def _keeper(piece: Piece, kept: dict[Place, Tensor], rows: slice = slice(None)) -> Visit:
    return Visit(piece.place, lambda view: kept.__setitem__(piece.place, piece.of(view[rows])))


def ids_of(texts: Sequence[Tokens], hf: PreTrainedModel) -> Int[Tensor, "text pos"]:
    """The token ids of texts of one length, on the model's device."""
    return onto(device_of(hf), np.array([tokens.read for tokens in texts], dtype=np.int64))


@dataclass(frozen=True)
class Trace:
    """One clean pass of texts of one length, as much of it as is needed to go on from its middle.

    Attributes:
        final: what the unembedding reads, ``[text, pos, d_model]``: mostly, after the final norm.
        inputs: what entered each block, and last what left the last one, ``[text, pos, d_model]``,
            from position ``start`` on.
        keys, values: of each block, ``[text, kv_head, pos, d_head]``, as attention saw them; none
            in an encoder, where no position stays as it was.
        calls: with what else each block was called.
        start: the first position of the inputs.
        kept: whole sites that were asked for, ``[text, *axes]``.
        beside: what was asked for of the riders, ``[rider, *axes]``.
    """

    final: Float[Tensor, "text pos d_model"]
    inputs: tuple[Float[Tensor, "text own d_model"], ...]
    keys: tuple[Float[Tensor, "text kv_head pos d_head"], ...]
    values: tuple[Float[Tensor, "text kv_head pos d_value"], ...]
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
    edits: Sequence[Visit] = (),
) -> Trace:
    """One pass of texts of one length, recorded, clean unless edited; these places of it whole.

    Riders are texts of the same length that go along, so that weights are read once for all; of
    them only these pieces are recorded.
    """
    layers = range(anatomy.dims.n_layers)
    stream = [(find_site("resid_pre"), layer) for layer in layers]
    stream += [(find_site("resid_post"), layers[-1])]
    last = len(texts[0].read) - 1
    inputs: dict[Place, Tensor] = {}
    kept: dict[Place, Tensor] = {}
    beside: dict[Place, Tensor] = {}
    own, others = slice(len(texts)), slice(len(texts), None)
    visits = [*edits]
    visits += [_keeper(Piece(place, start, last), inputs, own) for place in stream]
    visits += [_keeper(Piece(place, 0, last), kept, own) for place in dict.fromkeys(places)]
    visits += [_keeper(piece, beside, others) for piece in pieces]
    end = find_site("resid_post"), layers[-1]
    ended: dict[Place, Tensor] = {}
    visits.append(_keeper(Piece(end, 0, last), ended, own))
    # Without a configuration it keeps all of them, in layers with a sliding window as well.
    cache = DynamicCache()
    keeping = {cache_name(hf.base_model): cache, "use_cache": True} if anatomy.dims.causal else {}
    with (
        session(hf, anatomy) as opened,
        quiet(hf),
        visited(hf, anatomy, visits),
        _calls(opened) as calls,
    ):
        call_body(hf, ids_of([*texts, *riders], hf), **keeping)
        final = anatomy.final(hf, ended[end])
    for made in calls.values():
        made.is_plainly_causal  # noqa: B018  (looked up now: later it would be waited for)
    return Trace(
        final=final,
        inputs=tuple(inputs[place] for place in stream),
        keys=tuple(layer.keys[own] for layer in cache.layers),
        values=tuple(layer.values[own] for layer in cache.layers),
        calls=tuple(calls[layer] for layer in layers),
        start=start,
        kept=kept,
        beside=beside,
    )


@contextmanager
def _calls(own: Session) -> Iterator[dict[int, Call]]:
    """Within this block, with what each block is called is written down."""
    made: dict[int, Call] = {}

    def write_down(layer: int, block: nn.Module, args: tuple[Any, ...], kwargs: Any) -> None:
        made[layer] = Call.of(block, args, kwargs)

    hooks: list[tuple[nn.Module, Side, Act]] = [
        (own.anatomy.block(own.hf, layer), "input", partial(write_down, layer))
        for layer in range(own.anatomy.dims.n_layers)
    ]
    with own.block():
        own.hook(hooks)
        yield made
