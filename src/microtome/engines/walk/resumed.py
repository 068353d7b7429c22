"""One block from a position on: behind it the clean run's own keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from torch import Tensor

from microtome.model.devices import numbers, onto
from microtome.model.loaded import Loaded
from microtome.passes.prefix import Part, PrefixCache, SharedPrefix, SideBySide, attending_to
from microtome.passes.segments import Segment
from microtome.passes.trace import Trace


class Beside(NamedTuple):
    """Rows beside others: where they are, of which clean runs, and where they begin."""

    segment: Segment
    prompts: Sequence[int]
    position: int


@dataclass(frozen=True, eq=False)
class Resumed:
    """The blocks of a model, gone on with from the middle of clean runs.

    Attributes:
        model: the model.
        trace: the clean runs.
    """

    model: Loaded
    trace: Trace

    def __call__(
        self, layer: int, x: Float[Tensor, "row own d_model"], prompts: Sequence[int], position: int
    ) -> Float[Tensor, "row own d_model"]:
        """One block on rows that begin at a position: as many of each of these clean runs."""
        hf, anatomy = self.model.hf, self.model.anatomy
        if not anatomy.dims.causal:
            return anatomy.resume(hf, layer, x, self.trace.calls[layer].whole(len(x)))
        before = self._before(layer, prompts, position)
        call, looks_up = self.trace.calls[layer], anatomy.family.looks_up
        arguments = call.resumed(position, x, plain=looks_up)
        if not looks_up:
            assert call.cache is not None, "a decoder's block takes a cache"
            arguments[call.cache] = PrefixCache(*before)
            return anatomy.resume(hf, layer, x, arguments)
        with attending_to(hf, SharedPrefix(*before, self._upcasts)):
            return anatomy.resume(hf, layer, x, arguments)

    @property
    def _upcasts(self) -> bool:
        return self.model.anatomy.family.upcast == "softmax"

    def side_by_side(
        self, layer: int, x: Float[Tensor, "1 all d_model"], some: Sequence[Beside]
    ) -> Float[Tensor, "1 all d_model"]:
        """One block on rows that begin at several positions, one behind another."""
        hf, call = self.model.hf, self.trace.calls[layer]
        positions = [
            np.tile(np.arange(one.position, one.position + one.segment.own), one.segment.rows)
            for one in some
        ]
        parts = [self._part(layer, one) for one in some]
        with attending_to(hf, SideBySide(parts)):
            arguments = call.at(onto(x.device, np.concatenate(positions)))
            return self.model.anatomy.resume(hf, layer, x, arguments)

    def _part(self, layer: int, one: Beside) -> Part:
        before = self._before(layer, one.prompts, one.position)
        mask = self.trace.calls[layer].mask(one.position)
        here = None if mask is None else mask.to(before[0].device)  # it is no argument of a block
        return Part(one.segment, SharedPrefix(*before, self._upcasts), here)

    def _before(self, layer: int, prompts: Sequence[int], position: int) -> tuple[Tensor, Tensor]:
        """Keys and values of these clean runs, before a position."""
        keys, values = self.trace.keys[layer], self.trace.values[layer]
        if len(prompts) < len(keys):
            rows = numbers(keys.device, prompts)
            keys, values = keys[rows], values[rows]
        return keys[:, :, :position], values[:, :, :position]
