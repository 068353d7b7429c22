"""Running circuits: what is left of a model's answer when all other edges are ablated."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import xarray as xr

from microtome.circuits.ablations import Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.trial import VERIFIED, Trial, ticking
from microtome.engines.observer import Observer, observed
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.results import provenance
from microtome.results.effects import CLEAN
from microtome.results.told import as_text
from microtome.spoken import spoken
from microtome.workers import Workers

Circuits = Circuit | Sequence[Circuit] | Mapping[Any, Circuit]


@spoken
def run(
    model: Loaded,
    prompts: Given | Iterable[Given],
    circuits: Circuits,
    *,
    metrics: str | Iterable[str] = "logit_diff",
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    verify: Verify | int | str = VERIFIED,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> xr.Dataset:
    """Run circuits: every edge outside of one carries what an ablation says.

    Every reader of the model has an input of its own then, in one pass: the stream, and of each
    edge into it that is outside the ablated share in the place of the share that was written in
    this pass. Many circuits are rows of one batch.

    Args:
        model: from `load`.
        prompts: one or several.
        circuits: one, several, or several by name.
        metrics: on the output, such as ``"logit_diff"`` or ``"kl"``.
        ablation: ``"patch"``: what the writer writes in the donor's run; ``"zero"``: nothing;
            ``"mean"``: what it writes at that position on average over reference prompts. Or an
            `Ablation`.
        reference: the prompts that ``"mean"`` averages over; the prompts themselves unless given.
        memory: bytes besides the model, or a text such as ``"2GiB"``, which it is unless given.
        verify: how many circuits on a prompt are run again on the reference path; ``"all"``; 0.
        workers: who runs them in the place of this process, such as `mt.workers.processes`, or a
            name, ``"ray:auto"``: a pass of rows at a time. The numbers are the same, bit for bit.
        progress: show a bar, or an `Observer`.

    Returns:
        Each metric over ``prompt`` and ``circuit`` (without that for a single one), and
        ``clean_<metric>`` over ``prompt``, of the model itself. ``edges`` says how many each has.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs.
        VerificationError: a circuit is not what it is on the reference path.
        Cancelled: the observer wanted no more.

    Source: Wang et al. 2022 (arXiv:2211.00593), section 2; Conmy et al. 2023 (arXiv:2304.14997).

    >>> import microtome as mt
    >>> model, prompts = mt.load(), mt.tasks.ioi(2)
    >>> full = mt.circuits.Circuit.full(model)
    >>> found = mt.circuits.run(model, prompts, {"all": full, "none": full - full})
    >>> found["logit_diff"].dims
    ('prompt', 'circuit')
    """
    trial = Trial.of(model, prompts, metrics, ablation, reference, memory, verify)
    own, alone = named(circuits)
    trial.check(own.values())
    rows = len(trial.encoded) * len(own)
    with (
        observed(progress, rows, 1) as observer,
        provenance.held(model),
        lent(trial, workers) as trial,
    ):
        measured = trial.measure([*own.values()], ticking(observer))
    return labelled(trial, own, measured, alone)


def named(circuits: Circuits) -> tuple[dict[Any, Circuit], bool]:
    """Circuits by name or number, and whether it is one alone."""
    if isinstance(circuits, Circuit):
        return {0: circuits}, True
    found = dict(circuits) if isinstance(circuits, Mapping) else dict(enumerate(circuits))
    if not found:
        raise CircuitError("No circuit is given.")
    return found, False


def labelled(
    trial: Trial,
    own: Mapping[Any, Circuit],
    measured: Mapping[str, Array],
    alone: bool = False,
) -> xr.Dataset:
    """What was measured of circuits, with names and what is needed to repeat it."""
    variables: dict[str, Any] = {}
    for reading in trial.asked:
        name, metric = str(reading), reading.metric
        told = {"about": metric.about, "unit": metric.unit, "direction": metric.direction}
        variables[name] = (("prompt", "circuit"), measured[name], told)
        variables[CLEAN + name] = ("prompt", trial.clean[name], told)
    variables["edges"] = ("circuit", [len(one) for one in own.values()], {"unit": "edges"})
    texts = np.array([one.tokens.text for one in trial.encoded], dtype=object)
    coordinates = {
        "prompt": np.arange(len(trial.encoded)),
        "circuit": [*own],
        "text": ("prompt", texts),
    }
    data = xr.Dataset(variables, coordinates, attributes(trial))
    return data.isel(circuit=0, drop=True) if alone else data


def attributes(trial: Trial) -> dict[str, Any]:
    """What is needed to repeat a measurement, and the graph, as attributes of a result."""
    kept = {"model": provenance.of_model(trial.model), **provenance.of_machine()}
    return {
        "metrics": [str(reading) for reading in trial.asked],
        "ablation": trial.ablation.name,
        "graph": json.dumps(trial.graph.cfg),
        "noise": json.dumps(trial.checked.noise),
        "verification": json.dumps(trial.checked.as_dict()),
        "provenance": as_text(kept),
    }
