"""One exact pass of circuits: each reader has an input of its own.

A reader's input is what the stream is in this pass, and for every edge into it that is outside of
the circuit, the ablated share in the place of the one that was written in this pass:

    input  =  stream  +  Σ over edges outside  (ablated share − share of this pass)

So edges inside carry what this pass wrote, and a reader into which no edge is cut reads the stream
to the bit. Where what heads add is normed first (Gemma 2 and 3, OLMo 2), what they add over edges
outside changes together, by *norm(whole with these replaced) − norm(whole)*. A norm makes what is
almost nothing large, and where nothing is left the difference of two sums is their rounding: there
everything is summed anew, in types that round finely enough that a sum is the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import PARTS, Bools, Graph
from microtome.circuits.written import mixing, normed, resting, writing
from microtome.language.sites import site as find_site
from microtome.model.devices import numbers, onto
from microtome.model.loaded import Loaded
from microtome.passes.calling import call_body
from microtome.passes.hooks import Visit, quiet, visited
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.prompts.tokens import Tokens


@dataclass(eq=False)
class CircuitPass:
    """A pass whose rows are circuits, each on a text.

    Attributes:
        model: the model.
        graph: its graph.
        texts: of each row; of one length.
        cut: which edges are outside, ``[row, reader, writer]``.
        ablated: what these carry, ``[row, writer, pos, d_model]``.
        missing: what has been written, subtracted from what is ablated, likewise.
        mixed: per layer what its heads add together, where a norm follows.
        still: likewise, of heads that write nothing.
    """

    model: Loaded
    graph: Graph
    texts: Sequence[Tokens]
    cut: Bools
    ablated: Float[Tensor, "row writer pos d_model"]
    missing: Tensor = field(init=False)
    mixed: dict[int, Tensor] = field(default_factory=dict)
    still: Sequence[Tensor] = ()

    def __post_init__(self) -> None:
        self.missing = torch.zeros_like(self.ablated)
        if self._is_normed:
            self.still = resting(self.model)

    def final(self, places: Sequence[int]) -> Float[Tensor, "row place d_model"]:
        """What the unembedding reads at some positions."""
        hf, anatomy = self.model.hf, self.model.anatomy
        ended: list[Tensor] = []
        end = find_site("final_in"), None
        visits = [*self._visits()]
        visits.append(Visit(end, lambda view: ended.append(view[:, numbers(view.device, places)])))
        with session(hf, anatomy), quiet(hf):
            with visited(hf, anatomy, visits):
                call_body(hf, ids_of(self.texts, hf), use_cache=False)
            return anatomy.final(hf, ended[0])

    def _visits(self) -> Iterator[Visit]:
        yield from writing(self.graph, self._write)
        if self._is_normed:
            yield from mixing(
                self.model, lambda layer, view: self.mixed.update({layer: view.clone()})
            )
        heads, first = self.graph.n_heads, 0
        for layer in range(self.graph.n_layers):
            for part in PARTS:
                yield from self._reading(f"{part}_in", layer, slice(first, first + heads), True)
                first += heads
            yield from self._reading("mlp_in", layer, slice(first, first + 1), False)
            first += 1
        yield from self._reading("final_in", None, slice(first, first + 1), False)

    @property
    def _is_normed(self) -> bool:
        return self.model.anatomy.family.attn_norm is not None

    def _write(self, first: int, view: Float[Tensor, "row pos writer d_model"]) -> None:
        own = slice(first, first + view.shape[2])
        self.missing[:, own] = self.ablated[:, own] - view.transpose(1, 2)

    def _reading(
        self, site: str, layer: int | None, readers: slice, headed: bool
    ) -> Iterator[Visit]:
        """The visit of some readers, unless no edge into them is cut in any row."""
        before = self.graph.written_before(self.graph.readers[readers.start])
        cut = self.cut[:, readers, :before]
        if not cut.any():
            return

        def act(view: Tensor) -> None:
            if self._is_normed and is_fine(self.ablated):
                made = self._anew(cut).transpose(1, 2)  # [row, pos, reader, d_model]
                stream = view if headed else view[:, :, None]
                own = self._moved(cut)[:, None, :, None]
                stream.copy_(torch.where(own, made, stream))
                return
            change = self._change(cut).transpose(1, 2)  # likewise
            view += change if headed else change[:, :, 0]

        yield Visit((find_site(site), layer), act, writes=True)

    def _change(self, cut: Bools) -> Float[Tensor, "row reader pos d_model"]:
        """What readers read otherwise than the stream; edges cut ``[row, reader, writer]``."""
        before = cut.shape[2]
        missing = self.missing[:, :before]
        outside = onto(missing.device, cut).to(missing.dtype)
        if not self._is_normed:
            return _summed(outside, missing)
        single = [n for n, one in enumerate(self.graph.writers[:before]) if one.head is None]
        change = _summed(outside[:, :, single], missing[:, single])
        for layer in range(self.graph.n_layers):
            first = self.graph.first_writer(layer)
            own = slice(first, first + self.graph.n_heads)
            if own.stop <= before and cut[:, :, own].any():
                heads = _summed(outside[:, :, own], missing[:, own])
                change += normed(self.model, layer, self.mixed[layer], heads)
        return change

    def _moved(self, cut: Bools) -> Bool[Tensor, "row reader"]:
        """Which readers are ablated something other than what was written."""
        missing = self.missing[:, : cut.shape[2]]
        other = (missing != 0).flatten(2).any(2)
        return (onto(missing.device, cut) & other[:, None]).any(2)

    def _anew(self, cut: Bools) -> Float[Tensor, "row reader pos d_model"]:
        """What readers read, summed from what is written and what is ablated."""
        before = cut.shape[2]

        def summed(which: list[int]) -> Tensor:
            ablated = self.ablated[:, which]
            outside = onto(ablated.device, cut[:, :, which]).to(ablated.dtype)
            written = ablated - self.missing[:, which]
            return _summed(outside, ablated) + _summed(1 - outside, written)

        whole = summed([n for n, one in enumerate(self.graph.writers[:before]) if one.head is None])
        anatomy, hf = self.model.anatomy, self.model.hf
        for layer in range(self.graph.n_layers):
            first = self.graph.first_writer(layer)
            own = [*range(first, first + self.graph.n_heads)]
            if own[-1] < before:
                heads = summed(own) + self.still[layer]
                whole += anatomy.attention_normed(hf, layer, heads)
        return whole


def is_fine(values: Tensor) -> bool:
    """Whether a type rounds so finely that what is summed anew is as good as the stream."""
    return values.dtype in (torch.float32, torch.float64)


def _summed(
    outside: Float[Tensor, "row reader writer"], missing: Float[Tensor, "row writer pos d_model"]
) -> Float[Tensor, "row reader pos d_model"]:
    rows, readers = outside.shape[:2]
    return (outside @ missing.flatten(2)).view(rows, readers, *missing.shape[2:])


def cut_of(circuits: Sequence[Circuit]) -> Bools:
    """Which edges are outside of each circuit, ``[circuit, reader, writer]``."""
    exists = circuits[0].graph.exists
    found: Bools = np.stack([(exists & ~circuit.mask).T for circuit in circuits])
    return found
