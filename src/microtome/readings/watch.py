"""Gauges on their way through the layers: the metrics inside the model, for many cells at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.language.sites import Dimensions
from microtome.model.devices import numbers
from microtome.passes.hooks import Place, Visit
from microtome.prompts.encoding import Encoded
from microtome.readings.inside import Fitted, Gauge


@dataclass(frozen=True, eq=False)
class Watch:
    """The gauges of some prompts of one length.

    Attributes:
        fitted: the gauges on every prompt, ``[prompt]``.
        clean: what they read in the clean runs, ``[prompt, *axes]``, all positions.
    """

    fitted: Mapping[Gauge, Sequence[Fitted]]
    clean: Mapping[Place, Tensor]

    @classmethod
    def over(
        cls,
        gauges: Sequence[Gauge],
        encoded: Sequence[Encoded],
        dims: Dimensions,
        clean: Mapping[Place, Tensor],
    ) -> Watch:
        """The gauges on these prompts, whose clean runs were recorded at the gauges' places."""
        return cls({gauge: [gauge.on(one, dims) for one in encoded] for gauge in gauges}, clean)

    def without_edits(self, gauge: Gauge, prompt: int) -> Float[Tensor, " *shape"]:
        """The values of a gauge in a prompt's clean run."""
        fitted = self.fitted[gauge][prompt]
        values = None
        for layer in fitted.layers:
            clean = self._clean(gauge, layer, prompt)
            value = fitted.measure(clean, clean)[0]
            if values is None:
                values = value.new_empty(fitted.shape)
            values[fitted.within(layer)] = value
        assert values is not None, "a gauge reads at least one layer"
        return values

    def unedited(
        self, prompts: Sequence[int], cells: int
    ) -> dict[Gauge, Float[Tensor, "prompt cell *shape"]]:
        """What every gauge reads before anything is edited, in so many cells of each prompt."""
        found = {}
        for gauge in self.fitted:
            clean = torch.stack([self.without_edits(gauge, prompt) for prompt in prompts])
            found[gauge] = clean.unsqueeze(1).repeat(1, cells, *[1] * (clean.ndim - 1))
        return found

    def visits(
        self,
        layer: int,
        prompts: Sequence[int],
        start: int,
        into: Mapping[Gauge, Float[Tensor, "prompt cell *shape"]],
        at_once: int = 1,
    ) -> Iterator[Visit]:
        """The visits that measure a layer of cells that begin at a position.

        They read a batch of as many cells for each of the prompts, prompt by prompt, so many at
        once.
        """
        for gauge, fitted in self.fitted.items():
            if layer in fitted[0].layers:
                look = self._look(gauge, layer, prompts, start, into[gauge], at_once)
                yield Visit((gauge.site, layer), look)

    def _look(
        self,
        gauge: Gauge,
        layer: int,
        prompts: Sequence[int],
        start: int,
        into: Tensor,
        at_once: int,
    ) -> Callable[[Tensor], None]:
        def look(view: Tensor) -> None:
            cells = len(view) // len(prompts)
            for row, prompt in enumerate(prompts):
                fitted = self.fitted[gauge][prompt]
                clean = self._clean(gauge, layer, prompt)
                for first in range(0, cells, at_once):
                    last = min(cells, first + at_once)
                    own = view[row * cells + first : row * cells + last]
                    values = _whole(own, clean, fitted.positions, start)
                    target = into[row, first:last].movedim(0, -1)
                    target[fitted.within(layer)] = fitted.measure(values, clean).movedim(0, -1)

        return look

    def _clean(self, gauge: Gauge, layer: int, prompt: int) -> Float[Tensor, "1 pos *units"]:
        site = self.clean[gauge.site, layer][prompt : prompt + 1]
        return _at(site, self.fitted[gauge][prompt].positions)


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
