"""Probes on their way through the layers: the metrics inside the model, for many cells at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.devices import numbers
from microtome.probes import Placed, Probe
from microtome.prompts import Encoded
from microtome.run import Place, Visit
from microtome.sites import Dimensions

MOST = 2**22
"""Values of a site that are looked at together: 32 MiB in float64."""


@dataclass(frozen=True, eq=False)
class Watch:
    """The probes of some prompts of one length.

    Attributes:
        placed: the probes on every prompt, ``[prompt]``.
        clean: what they read in the clean runs, ``[prompt, *axes]``, all positions.
    """

    placed: Mapping[Probe, Sequence[Placed]]
    clean: Mapping[Place, Tensor]

    @classmethod
    def over(
        cls,
        probes: Sequence[Probe],
        encoded: Sequence[Encoded],
        dims: Dimensions,
        clean: Mapping[Place, Tensor],
    ) -> Watch:
        """The probes on these prompts, whose clean runs were recorded at the probes' places."""
        return cls({probe: [probe.on(one, dims) for one in encoded] for probe in probes}, clean)

    def without_edits(self, probe: Probe, prompt: int) -> Float[Tensor, " *shape"]:
        """The values of a probe in a prompt's clean run."""
        placed = self.placed[probe][prompt]
        values = None
        for layer in placed.layers:
            clean = self._clean(probe, layer, prompt)
            value = placed.measure(clean, clean)[0]
            if values is None:
                values = value.new_empty(placed.shape)
            values[placed.within(layer)] = value
        assert values is not None, "a probe reads at least one layer"
        return values

    def unedited(
        self, prompts: Sequence[int], cells: int
    ) -> dict[Probe, Float[Tensor, "prompt cell *shape"]]:
        """What every probe reads before anything is edited, in so many cells of each prompt."""
        found = {}
        for probe in self.placed:
            clean = torch.stack([self.without_edits(probe, prompt) for prompt in prompts])
            found[probe] = clean.unsqueeze(1).repeat(1, cells, *[1] * (clean.ndim - 1))
        return found

    def size(self, probe: Probe, prompt: int) -> float:
        """How large what a probe reads is in the clean run: the largest norm of a layer.

        1 for the cosine, which does not depend on it. Rounding is as large as this allows.
        """
        if probe.metric.compute is None:
            return 1.0
        layers = self.placed[probe][prompt].layers
        return max(float(self._clean(probe, n, prompt).double().norm()) for n in layers)

    def visits(
        self,
        layer: int,
        prompts: Sequence[int],
        start: int,
        into: Mapping[Probe, Float[Tensor, "prompt cell *shape"]],
    ) -> Iterator[Visit]:
        """The visits that measure a layer of cells that begin at a position.

        They read a batch of as many cells for each of the prompts, prompt by prompt.
        """
        for probe, placed in self.placed.items():
            if layer in placed[0].layers:
                look = self._look(probe, layer, prompts, start, into[probe])
                yield Visit((probe.site, layer), look)

    def _look(
        self, probe: Probe, layer: int, prompts: Sequence[int], start: int, into: Tensor
    ) -> Callable[[Tensor], None]:
        def look(view: Tensor) -> None:
            cells = len(view) // len(prompts)
            for row, prompt in enumerate(prompts):
                placed = self.placed[probe][prompt]
                clean = self._clean(probe, layer, prompt)
                some = max(1, MOST // clean.numel())
                for first in range(0, cells, some):
                    last = min(cells, first + some)
                    own = view[row * cells + first : row * cells + last]
                    values = _whole(own, clean, placed.positions, start)
                    target = into[row, first:last].movedim(0, -1)
                    target[placed.within(layer)] = placed.measure(values, clean).movedim(0, -1)

        return look

    def _clean(self, probe: Probe, layer: int, prompt: int) -> Float[Tensor, "1 pos *units"]:
        site = self.clean[probe.site, layer][prompt : prompt + 1]
        return _at(site, self.placed[probe][prompt].positions)


def _whole(
    own: Float[Tensor, "cell own *units"],
    clean: Float[Tensor, "1 pos *units"],
    positions: Sequence[int],
    start: int,
) -> Float[Tensor, "cell pos *units"]:
    """Values at some positions: those before the start are the clean run's."""
    before = sum(position < start for position in positions)
    after = _at(own, [position - start for position in positions[before:]])
    if not before:
        return after
    return torch.cat([clean[:, :before].expand(len(own), *clean[:, :before].shape[1:]), after], 1)


def _at(x: Tensor, positions: Sequence[int]) -> Tensor:
    return x.index_select(1, numbers(x.device, positions))
