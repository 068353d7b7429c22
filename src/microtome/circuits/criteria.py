"""Two criteria of a circuit besides faithfulness: that nothing is missing, and nothing too much.

With F the metric, M the model and C the circuit (Wang et al. 2022, arXiv:2211.00593, section 4):

- **complete**: for every part K of C, ``|F(C∖K) − F(M∖K)|`` is small: the circuit without K does
  what the model without K does.
- **minimal**: for every part v of C there is a K in C, without v, with ``|F(C∖(K∪v)) − F(C∖K)|``
  large: each part is of use somewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import xarray as xr

from microtome.amounts import whole_of
from microtome.circuits.ablations import Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.graph import INPUT
from microtome.circuits.running import attributes
from microtome.circuits.trial import VERIFIED, Trial, ticking
from microtome.engines.observer import Observer, observed
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.plan.verify import Verify
from microtome.prompts.prompts import Given
from microtome.results import provenance
from microtome.spoken import spoken
from microtome.workers import Workers


@spoken
def parts_of(circuit: Circuit) -> dict[str, Circuit]:
    """A circuit's parts by the node that writes: all edges of the graph that leave it.

    The input is no part: without it there is no circuit.

    >>> from microtome.circuits import Graph
    >>> list(parts_of(Circuit.full(Graph(n_layers=1, n_heads=1, d_model=4))))
    ['a0.h0', 'm0']
    """
    graph = circuit.graph
    writers = [n for n in np.unique(graph.ends[0][circuit.chosen]) if graph.nodes[n] != INPUT]
    return {graph.nodes[n]: Circuit(graph, graph.ends[0] == n) for n in writers}


@spoken
def completeness(
    model: Loaded,
    prompts: Given | Iterable[Given],
    circuit: Circuit,
    metric: str = "logit_diff",
    *,
    parts: Mapping[str, Circuit] | None = None,
    draws: int = 0,
    seed: int = 0,
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    verify: Verify | int | str = VERIFIED,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> xr.Dataset:
    """Whether a circuit without some part does what the model does without it.

    Args:
        model: from `load`.
        prompts: to judge by.
        circuit: the circuit.
        metric: on the output.
        parts: sets of edges by name; what leaves each of its nodes (`parts_of`) unless given.
        draws: how many sets more, of several parts at random, half of them on average.
        seed: of these.
        ablation: what edges outside carry, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        memory: bytes besides the model, or a text.
        verify: how many circuits on a prompt are run again on the reference path; ``"all"``; 0.
        workers: who runs them, as of `run`.
        progress: show a bar, or an `Observer`.

    Returns:
        ``of_circuit`` and ``of_model``, the metric without each part over ``prompt`` and ``part``
        (the first of which is ``nothing``), and ``gap`` over ``part``: how far apart their means
        over prompts are.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs.
    """
    trial = Trial.by(model, prompts, metric, ablation, reference, memory, verify)
    own = {"nothing": Circuit.empty(trial.graph), **(parts_of(circuit) if parts is None else parts)}
    trial.check([circuit, *own.values()])
    own |= dict(_drawn(list(own.items())[1:], draws, seed))
    full = Circuit.full(trial.graph)
    wanted = [whole - part for whole in (circuit, full) for part in own.values()]
    found = _measured(trial, wanted, workers, progress)
    of_circuit, of_model = np.split(found, 2, axis=1)
    gap = np.abs(of_circuit.mean(axis=0) - of_model.mean(axis=0))
    return _labelled(trial, [*own], {"of_circuit": of_circuit, "of_model": of_model}, gap)


@spoken
def minimality(
    model: Loaded,
    prompts: Given | Iterable[Given],
    circuit: Circuit,
    metric: str = "logit_diff",
    *,
    parts: Mapping[str, Circuit] | None = None,
    draws: int = 0,
    seed: int = 0,
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    verify: Verify | int | str = VERIFIED,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> xr.Dataset:
    """Whether each part of a circuit is of use in it.

    Args:
        model: from `load`.
        prompts: to judge by.
        circuit: the circuit.
        metric: on the output.
        parts: sets of edges by name; what leaves each of its nodes (`parts_of`) unless given.
        draws: how many sets K of other parts to try for each, at random, beside none.
        seed: of these.
        ablation: what edges outside carry, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        memory: bytes besides the model, or a text.
        verify: how many circuits on a prompt are run again on the reference path; ``"all"``; 0.
        workers: who runs them, as of `run`.
        progress: show a bar, or an `Observer`.

    Returns:
        ``with_part`` and ``without``, the metric of C∖K with and without each part over ``prompt``
        and ``part``, for the K that tells most of those tried; and ``gap`` over ``part``: how far
        apart their means over prompts are.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs.
    """
    trial = Trial.by(model, prompts, metric, ablation, reference, memory, verify)
    own = parts_of(circuit) if parts is None else dict(parts)
    trial.check([circuit, *own.values()])
    if not own:
        raise CircuitError("The circuit has no parts: no edge of it leaves a head or an MLP.")
    wanted: list[Circuit] = []
    for number, (name, part) in enumerate(own.items()):
        others = [(other, one) for other, one in own.items() if other != name]
        drawn = [without for _, without in _drawn(others, draws, seed + number)]
        for without in (Circuit.empty(trial.graph), *drawn):
            wanted += [circuit - without, circuit - (without | part)]
    found = _measured(trial, wanted, workers, progress)
    each = found.reshape(len(trial.encoded), len(own), -1, 2)  # [prompt, part, K, with or without]
    gaps = np.abs(np.diff(each.mean(axis=0), axis=-1)[..., 0])
    telling = gaps.argmax(axis=1)
    chosen = each[:, np.arange(len(own)), telling]
    values = {"with_part": chosen[..., 0], "without": chosen[..., 1]}
    return _labelled(trial, [*own], values, gaps.max(axis=1))


def _drawn(parts: list[tuple[str, Circuit]], draws: int, seed: int) -> list[tuple[str, Circuit]]:
    """Sets of several parts at random, by the names of the parts."""
    rng = np.random.default_rng(whole_of(seed, 0, "seed"))
    found = []
    for _ in range(draws if parts else 0):
        some = [parts[n] for n in np.flatnonzero(rng.random(len(parts)) < 0.5)] or [parts[0]]
        together = some[0][1]
        for _, part in some[1:]:
            together = together | part
        found.append((" ".join(name for name, _ in some), together))
    return found


def _measured(
    trial: Trial,
    circuits: list[Circuit],
    workers: Workers | str | None,
    progress: bool | Observer,
) -> Array:
    """The metric of some circuits, ``[prompt, circuit]``; equal ones are run once."""
    unlike = list(dict.fromkeys(circuits))
    rows = len(trial.encoded) * len(unlike)
    with (
        observed(progress, rows, 1) as observer,
        provenance.held(trial.model),
        lent(trial, workers) as trial,
    ):
        found = trial.measure(unlike, ticking(observer))[str(trial.asked[0])]
    number = {circuit: n for n, circuit in enumerate(unlike)}
    return found[:, [number[circuit] for circuit in circuits]]


def _labelled(
    trial: Trial, names: list[str], values: Mapping[str, Array], gap: Array
) -> xr.Dataset:
    metric = trial.asked[0]
    told = {"about": metric.metric.about, "unit": metric.metric.unit}
    return xr.Dataset(
        {
            **{name: (("prompt", "part"), own, told) for name, own in values.items()},
            "gap": ("part", gap, {"unit": metric.metric.unit}),
        },
        {"part": np.array(names, dtype=object), "prompt": np.arange(len(trial.encoded))},
        {**attributes(trial), "metric": str(metric)},
    )
