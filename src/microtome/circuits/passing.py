"""One exact pass of circuits: each reader has an input of its own.

A reader's input is what the stream is in this pass, and for every edge into it that is outside of
the circuit, the ablated share in the place of the one that was written in this pass:

    input  =  stream  +  Σ over edges outside  (ablated share − share of this pass)

So edges inside carry what this pass wrote, and a reader into which no edge is cut reads the stream
to the bit. Where what heads add is normed first (Gemma 2 and 3, OLMo 2), what they add over edges
outside changes together, by *norm(whole with these replaced) − norm(whole)*.

A norm makes what is almost nothing large. Where edges outside carry nothing, little may be left,
and the difference of the stream and the shares would be the rounding of the stream: then what is
left is summed by itself, so that a reader that is left nothing reads nothing. Sums are in float32
at least, and what is read is rounded once, to the stream's type.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import PARTS, Bools, Graph
from microtome.circuits.written import resting, writing
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
        ablated: what these carry, ``[row, writer, pos, d_model]``; in float32 at least.
        missing: what has been written, subtracted from what is ablated, likewise.
        still: per layer, what heads add that write nothing; where what is left is summed by itself.
    """

    model: Loaded
    graph: Graph
    texts: Sequence[Tokens]
    cut: Bools
    ablated: Float[Tensor, "row writer pos d_model"]
    missing: Tensor = field(init=False)
    still: Sequence[Tensor] = ()

    def __post_init__(self) -> None:
        self.ablated = in_sums(self.ablated)
        self.missing = torch.zeros_like(self.ablated)
        self.other = torch.zeros(self.ablated.shape[:3], device=self.ablated.device)
        if self._sums_anew:
            self.still = [one.to(self.ablated.dtype) for one in resting(self.model)]

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

    @cached_property
    def _carries(self) -> bool:
        """Whether edges outside carry anything."""
        return bool(self.ablated.any())

    @property
    def _sums_anew(self) -> bool:
        """Whether so little may be left of the stream that it is summed by itself."""
        return self._is_normed or not self._carries

    def _write(self, first: int, view: Float[Tensor, "row pos writer d_model"]) -> None:
        own = slice(first, first + view.shape[2])
        missing = torch.sub(self.ablated[:, own], view.transpose(1, 2), out=self.missing[:, own])
        self.other[:, own] = (missing != 0).any(-1).to(self.other.dtype)

    def _reading(
        self, site: str, layer: int | None, readers: slice, headed: bool
    ) -> Iterator[Visit]:
        """The visit of some readers, unless no edge into them is cut in any row."""
        before = self.graph.written_before(self.graph.readers[readers.start])
        cut = self.cut[:, readers, :before]
        if not cut.any():
            return

        def act(view: Tensor) -> None:
            stream = view if headed else view[:, :, None]  # [row, pos, reader, d_model]
            if self._sums_anew:
                left = self._left(cut).transpose(1, 2)
                moved = self._moved(cut).transpose(1, 2).unsqueeze(-1)
                stream.copy_(left.where(moved, stream))
            else:
                stream += self._change(cut).transpose(1, 2)

        yield Visit((find_site(site), layer), act, writes=True)

    def _change(self, cut: Bools) -> Float[Tensor, "row reader pos d_model"]:
        """What readers read otherwise than the stream; edges cut ``[row, reader, writer]``."""
        missing = self.missing[:, : cut.shape[2]]
        return _summed(self._weights(cut), missing)

    def _moved(self, cut: Bools) -> Bool[Tensor, "row reader pos"]:
        """Where readers are ablated something other than what was written."""
        cuts = onto(self.other.device, cut).to(self.other.dtype)
        return cuts @ self.other[:, : cut.shape[2]] > 0

    def _left(self, cut: Bools) -> Float[Tensor, "row reader pos d_model"]:
        """What readers read, summed from what every edge carries."""
        before, inside = cut.shape[2], self._weights(~cut)

        def summed(which: slice | list[int]) -> Tensor:
            carried = -_summed(inside[:, :, which], self.missing[:, which])
            return (
                carried + self.ablated[:, which].sum(1, keepdim=True) if self._carries else carried
            )

        layers = [n for n in range(self.graph.n_layers) if self._heads(n)[-1] < before]
        if not self._is_normed:
            return summed(slice(before)) + sum(self.still[layer] for layer in layers)
        whole = summed([n for n, one in enumerate(self.graph.writers[:before]) if one.head is None])
        anatomy, hf = self.model.anatomy, self.model.hf
        for layer in layers:
            heads = summed(self._heads(layer)) + self.still[layer]
            whole += anatomy.attention_normed(hf, layer, heads.to(self.model.dtype))
        return whole

    def _heads(self, layer: int) -> list[int]:
        """The numbers of a layer's heads among the writers."""
        first = self.graph.first_writer(layer)
        return [*range(first, first + self.graph.n_heads)]

    def _weights(self, edges: Bools) -> Float[Tensor, "row reader writer"]:
        """1 for an edge, as weights of sums."""
        return onto(self.missing.device, edges).to(self.missing.dtype)


def in_sums(values: Tensor) -> Tensor:
    """Values in a type that sums are made in: float32 at least."""
    return values.to(torch.promote_types(values.dtype, torch.float32))


def _summed(
    weights: Float[Tensor, "row reader writer"], values: Float[Tensor, "row writer pos d_model"]
) -> Float[Tensor, "row reader pos d_model"]:
    rows, readers = weights.shape[:2]
    return (weights @ values.flatten(2)).view(rows, readers, *values.shape[2:])


def cut_of(circuits: Sequence[Circuit]) -> Bools:
    """Which edges are outside of each circuit, ``[circuit, reader, writer]``."""
    exists = circuits[0].graph.exists
    found: Bools = np.stack([(exists & ~circuit.mask).T for circuit in circuits])
    return found
