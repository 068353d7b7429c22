"""How much of a model's behaviour a circuit keeps.

Faithfulness is ``f(C) = (m(C) − m(∅)) / (m(full) − m(∅))``, of means over prompts: 1 where the
circuit does what the model does, 0 where it does no more than no edge at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy import typing as npt

from microtome.circuits.ablations import Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.running import Circuits, labelled, named
from microtome.circuits.trial import VERIFIED, Trial, ticking
from microtome.engines.observer import Observer, observed
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.results import provenance
from microtome.results.effects import CLEAN
from microtome.spoken import spoken
from microtome.stats import Interval, bootstrap
from microtome.workers import Workers

ABLATED = "ablated_"


@dataclass(frozen=True, eq=False)
class Measured:
    """What faithfulness is made of: one metric of circuits, of none, and of the model.

    Attributes:
        circuits: ``[prompt, circuit]``.
        empty, full: ``[prompt]``.
        rounding: how far apart these may be on a prompt and say nothing.
    """

    circuits: Array
    empty: Array
    full: Array
    rounding: float = 0.0

    def ratio(self, prompts: npt.NDArray[Any]) -> Array:
        """f of the circuits, of the means over some prompts ``[…, prompt]``: ``[…, circuit]``."""
        chosen = np.asarray(prompts).astype(int)
        own, empty, full = (
            one[chosen].mean(axis=chosen.ndim - 1) for one in (self.circuits, self.empty, self.full)
        )
        with np.errstate(divide="ignore", invalid="ignore"):  # of a resample that shows nothing
            found: Array = (own - empty[..., None]) / (full - empty)[..., None]
        return found

    @property
    def faithfulness(self) -> Array:
        """f of each circuit, ``[circuit]``.

        Raises:
            CircuitError: the model does no better than with every edge ablated.
        """
        apart = np.abs(self.full - self.empty).max()
        if apart <= self.rounding or self.full.mean() == self.empty.mean():
            raise CircuitError(
                f"The metric is {self.full.mean():.3g} with all edges and with none: these prompts "
                "and this ablation leave nothing that a circuit could be faithful to."
            )
        return self.ratio(np.arange(len(self.full)))

    def interval(self, of: Callable[[Array], Array], resamples: int, seed: int) -> Interval:
        """A number made of f, with its interval by resampling the prompts.

        Args:
            of: of f ``[…, circuit]``, the number ``[…]``.
            resamples: how many.
            seed: of the resampling.
        """

        def statistic(prompts: Array, axis: int = -1) -> Array:
            return of(self.ratio(np.moveaxis(prompts, axis, -1)))

        numbers = np.arange(len(self.full), dtype=float)
        return bootstrap(numbers, statistic, resamples=resamples, seed=seed)


def _alone(f: Array) -> Array:
    """Of one circuit."""
    found: Array = f[..., 0]
    return found


def measured(trial: Trial, circuits: Sequence[Circuit], observer: Observer) -> Measured:
    """The first metric of circuits, of none and of the model."""
    name = str(trial.asked[0])
    found = trial.measure([*circuits, Circuit.empty(trial.graph)], ticking(observer))[name]
    return Measured(found[:, :-1], found[:, -1], trial.clean[name], trial.rounding)


@spoken
def faithfulness(
    model: Loaded,
    prompts: Given | Iterable[Given],
    circuits: Circuits,
    metric: str = "logit_diff",
    *,
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    resamples: int = 9999,
    seed: int = 0,
    memory: int | str | None = None,
    verify: Verify | int | str = VERIFIED,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> xr.Dataset:
    """How much of what a model does circuits keep.

    Args:
        model: from `load`.
        prompts: the more the better; those that a circuit was not found on are an honest test.
        circuits: one, several, or several by name.
        metric: on the output.
        ablation: what edges outside carry, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        resamples: of the prompts, for the intervals.
        seed: of the resampling.
        memory: bytes besides the model, or a text.
        verify: how many circuits on a prompt are run again on the reference path; ``"all"``; 0.
        workers: who runs them, as of `run`.
        progress: show a bar, or an `Observer`.

    Returns:
        ``faithfulness`` over ``circuit``, with ``low`` and ``high`` (95 %, BCa; NaN where prompts
        are too few), how many ``edges`` each has, the metric over ``prompt`` and ``circuit``,
        and of no edge and of the model itself as ``ablated_<metric>`` and ``clean_<metric>``.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs; or the model does no
            better than with no edge.

    Source: Wang et al. 2022 (arXiv:2211.00593), section 4; normalised as Mueller et al. 2025
    (arXiv:2504.13151), section 3.

    >>> import microtome as mt
    >>> model, prompts = mt.load(), mt.tasks.ioi(4)
    >>> full = mt.circuits.Circuit.full(model)
    >>> found = mt.circuits.faithfulness(model, prompts, {"all": full, "none": full - full})
    >>> found["faithfulness"].values.round(3).tolist()
    [1.0, 0.0]
    """
    trial = Trial.by(model, prompts, metric, ablation, reference, memory, verify)
    own, alone = named(circuits)
    trial.check(own.values())
    rows = len(trial.encoded) * (len(own) + 1)
    with (
        observed(progress, rows, 1) as observer,
        provenance.held(model),
        lent(trial, workers) as trial,
    ):
        found = measured(trial, [*own.values()], observer)
    data = judged(trial, own, found, resamples, seed)
    return data.isel(circuit=0, drop=True) if alone else data


def judged(
    trial: Trial, own: Mapping[Any, Circuit], found: Measured, resamples: int, seed: int
) -> xr.Dataset:
    """What was measured of circuits, with how faithful they are."""
    name = str(trial.asked[0])
    data = labelled(trial, own, {name: found.circuits})
    f = found.faithfulness
    each = [replace(found, circuits=found.circuits[:, n : n + 1]) for n in range(len(own))]
    intervals = [one.interval(_alone, resamples, seed) for one in each]
    return data.assign(
        {
            ABLATED + name: ("prompt", found.empty, data[CLEAN + name].attrs),
            "faithfulness": ("circuit", f, {"about": "(m(C) − m(∅)) / (m(full) − m(∅))"}),
            "low": ("circuit", [one.low for one in intervals]),
            "high": ("circuit", [one.high for one in intervals]),
        }
    )
