"""One block from a position on: behind it the clean run's own keys and values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from microtome.model.devices import numbers
from microtome.model.loaded import Loaded
from microtome.passes.prefix import PrefixCache, SharedPrefix, attending_to
from microtome.passes.trace import Trace


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
        keys, values = self.trace.keys[layer], self.trace.values[layer]
        if len(prompts) < len(keys):
            rows = numbers(keys.device, prompts)
            keys, values = keys[rows], values[rows]
        before = keys[:, :, :position], values[:, :, :position]
        call, looks_up = self.trace.calls[layer], anatomy.family.looks_up
        arguments = call.resumed(position, x, plain=looks_up)
        if not looks_up:
            assert call.cache is not None, "a decoder's block takes a cache"
            arguments[call.cache] = PrefixCache(*before)
            return anatomy.resume(hf, layer, x, arguments)
        upcast = anatomy.family.upcast == "softmax"
        with attending_to(hf, SharedPrefix(*before, upcast)):
            return anatomy.resume(hf, layer, x, arguments)
