"""The clean runs of a trial's prompts: their logits where metrics look, and what those say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy import typing as npt
from torch import Tensor

from microtome.engines.judging import MORE_UNITS, Precision
from microtome.model.loaded import Loaded
from microtome.passes.hooks import forward
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.prompts.encoding import Encoded
from microtome.readings.output import Reading

Array = npt.NDArray[np.float64]

HALF_A_UNIT = 0.5
"""How far apart logits of two passes are in half precision, in units of rounding; in float32 and
float64, whose units are nothing, `MORE_UNITS`."""


@dataclass(frozen=True, eq=False)
class CleanRuns:
    """The clean runs of some prompts, each run when it is first asked for.

    Attributes:
        model: the model.
        encoded: the prompts.
        asked: the metrics.
        found: what `of` has found so far.
    """

    model: Loaded
    encoded: Sequence[Encoded]
    asked: Sequence[Reading]
    found: dict[int, Mapping[int, Tensor]] = field(default_factory=dict)

    def of(self, prompt: int) -> Mapping[int, Tensor]:
        """The logits ``[1, vocab]`` of the model itself at each position where a metric is read."""
        if prompt not in self.found:
            hf, anatomy = self.model.hf, self.model.anatomy
            with session(hf, anatomy):
                logits = forward(hf, anatomy, ids_of([self.encoded[prompt].tokens], hf))
            places = {self.place(reading, prompt) for reading in self.asked}
            self.found[prompt] = {at: logits[:, at].clone() for at in places}
        return self.found[prompt]

    @cached_property
    def metrics(self) -> Mapping[str, Array]:
        """The metrics of the model itself, ``[prompt]`` each."""
        found: dict[str, Array] = {}
        for reading in self.asked:
            own = [self.of(n)[self.place(reading, n)] for n in range(len(self.encoded))]
            values = [reading.measure(x, x, one) for x, one in zip(own, self.encoded, strict=True)]
            found[str(reading)] = np.array([float(value) for value in values])
        return found

    @property
    def rounding(self) -> float:
        """How far apart the first metric's values of two passes may be and say nothing.

        Of a metric that is at its best without edits it is the square: a divergence is that of
        what logits are apart by.
        """
        reading, own = self.asked[0], Precision.of_stream(self.model)
        size = max(
            float(self.of(n)[self.place(reading, n)].nan_to_num(0, 0, 0).abs().max())
            for n in range(len(self.encoded))
        )
        units = HALF_A_UNIT if own.promise is None else MORE_UNITS
        allowed = units * own.eps * max(1.0, size)
        match reading.metric.name:
            case "kl" | "logit_corr":
                return allowed**2
            case "prob":
                return allowed * float(np.nan_to_num(self.metrics[str(reading)]).max())
            case "rank":
                return 0.0
            case _:
                return allowed

    def place(self, reading: Reading, prompt: int) -> int:
        """The position of a prompt where a metric is read."""
        return reading.position(self.encoded[prompt], self.model.anatomy.dims)
