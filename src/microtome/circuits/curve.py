"""The faithfulness curve: circuits of ten sizes by one set of scores, and the areas under it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import xarray as xr

from microtome.amounts import many
from microtome.circuits.ablations import Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.faithfulness import judged, measured
from microtome.circuits.scores import Scores
from microtome.circuits.trial import VERIFIED, Trial
from microtome.engines.observer import Observer, observed
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.notebook import html_line, html_table
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.results import provenance
from microtome.spoken import spoken
from microtome.stats import Interval
from microtome.workers import Workers

SIZES = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""Shares of all edges, as MIB's circuit track asks for them."""


@spoken
def cpr(shares: Sequence[float], f: Array) -> Array:
    """Circuit performance ratio: the area under f, ``[…, share]`` → ``[…]``; more is better.

    Trapezoids over the shares as they were asked for, from the first one on.

    Source: Mueller et al. 2025 (arXiv:2504.13151), section 3.2.

    >>> float(cpr(SIZES, np.ones(10)).round(3))
    0.999
    """
    found: Array = np.trapezoid(f, np.asarray(shares), axis=-1)
    return found


@spoken
def cmd(shares: Sequence[float], f: Array) -> Array:
    """Circuit–model distance: the area of |1 − f|, likewise; 0 is best.

    >>> float(cmd(SIZES, np.ones(10)))
    0.0
    """
    found: Array = np.trapezoid(np.abs(1 - np.asarray(f)), np.asarray(shares), axis=-1)
    return found


@spoken
@dataclass(frozen=True, eq=False)
class Curve:
    """How faithful the circuits of some sizes are.

    Attributes:
        data: as of `faithfulness`, with ``share`` in the place of ``circuit``: the shares asked
            for. ``edges`` says how many are left in each, pruned: MIB's weighted edge count, of
            whole nodes.
        cpr: the area under f, with its interval over prompts.
        cmd: the area of |1 − f|, likewise.
        circuits: of each size.
    """

    data: xr.Dataset
    cpr: Interval
    cmd: Interval
    circuits: tuple[Circuit, ...]

    @property
    def shares(self) -> list[float]:
        """The sizes as shares of all edges, or nodes."""
        found: list[float] = self.data["share"].values.tolist()
        return found

    def __repr__(self) -> str:
        return f"<Curve of {many(len(self.circuits), 'size')}; CPR {self.cpr}; CMD {self.cmd}>"

    def _repr_html_(self) -> str:
        """In a notebook: a row per size."""
        columns = ["edges", "faithfulness", "low", "high"]
        table = self.data[columns].to_dataframe()[columns].reset_index().astype(object)
        return html_line(repr(self)) + html_table(tuple(table.columns), table.values.tolist())


@spoken
def curve(
    model: Loaded,
    prompts: Given | Iterable[Given],
    scores: Scores,
    metric: str | None = None,
    *,
    sizes: Sequence[float] = SIZES,
    ablation: str | Ablation | None = None,
    reference: Iterable[Given] = (),
    absolute: bool = True,
    resamples: int = 9999,
    seed: int = 0,
    memory: int | str | None = None,
    verify: Verify | int | str = VERIFIED,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> Curve:
    """The faithfulness of circuits of growing size, by the strongest scores.

    Args:
        model: from `load`.
        prompts: to judge by; others than those that were scored are an honest test.
        scores: of edges, or of nodes, whose sizes are shares of all nodes then.
        metric: that of the scores, unless given.
        sizes: shares of all edges, growing; of n edges ``int(share · n)`` are taken.
        ablation: that of the scores, unless given.
        reference: the prompts that ``"mean"`` averages over.
        absolute: the strongest are those of the largest |score|.
        resamples: of the prompts, for the intervals.
        seed: of the resampling.
        memory: bytes besides the model, or a text.
        verify: how many circuits on a prompt are run again on the reference path; ``"all"``; 0.
        workers: who runs them, as of `run`.
        progress: show a bar, or an `Observer`.

    Raises:
        CircuitError: the scores are of another model, or sizes do not grow from 0 to 1.

    >>> import microtome as mt
    >>> model, prompts = mt.load(), mt.tasks.ioi(4)
    >>> scores = mt.circuits.score(model, prompts, level="node")
    >>> found = mt.circuits.curve(model, prompts, scores, sizes=(0.1, 0.5, 1.0))
    >>> float(found.data["faithfulness"][-1].round(3))
    1.0
    """
    shares = [*sizes]
    if shares != sorted(set(shares)) or not shares or not 0 <= shares[0] <= shares[-1] <= 1:
        raise CircuitError(f"sizes= are shares of all edges that grow, from 0 to 1, not {shares}.")
    attrs = scores.data.attrs
    trial = Trial.by(
        model,
        prompts,
        metric or attrs["metric"],
        ablation or attrs["ablation"],
        reference,
        memory,
        verify,
    )
    if trial.graph != scores.graph:
        raise CircuitError(
            f"The scores are of a model with {scores.graph}, and {model.name!r} has {trial.graph}."
        )
    circuits = [scores.circuit(int(share * len(scores)), absolute=absolute) for share in shares]
    rows = len(trial.encoded) * (len(shares) + 1)
    with (
        observed(progress, rows, 1) as observer,
        provenance.held(model),
        lent(trial, workers) as trial,
    ):
        found = measured(trial, circuits, observer)
    own = dict(zip(shares, circuits, strict=True))
    data = judged(trial, own, found, resamples, seed).rename(circuit="share")
    return Curve(
        data=data,
        cpr=found.interval(partial(cpr, shares), resamples, seed),
        cmd=found.interval(partial(cmd, shares), resamples, seed),
        circuits=tuple(circuits),
    )
