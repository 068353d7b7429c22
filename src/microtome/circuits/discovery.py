"""Searches for a circuit, exact: every decision is by running the circuits that it is about.

- `top`: the strongest edges by their scores, each measured alone.
- `greedy`: from all edges on, the one whose removal costs least goes next.
- `acdc`: reader by reader from the last to the first, an edge goes if that costs less than τ.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from microtome.amounts import many, single
from microtome.circuits.ablations import Ablation
from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Graph, Numbers
from microtome.circuits.scores import Scores
from microtome.circuits.search import Decision, Found, Search, priced, searching, table
from microtome.circuits.trial import Trial
from microtome.circuits.without import Without
from microtome.engines.observer import Observer
from microtome.errors import CircuitError
from microtome.model.loaded import Loaded
from microtome.prompts.prompts import Given
from microtome.spoken import spoken
from microtome.workers import Workers

AHEAD = 16
"""Circuits that `acdc` runs at a time, on the guess that all of the next edges go."""


@spoken
def top(scores: Scores, n: int | None = None, *, threshold: float | None = None) -> Found:
    """The circuit of the strongest edges; see `Scores.circuit`.

    >>> import microtome as mt
    >>> scores = mt.circuits.score(mt.load(), mt.tasks.ioi(2), level="node")
    >>> top(scores, 8).method
    'top(n=8)'
    """
    how = f"n={n}" if threshold is None else f"threshold={threshold}"
    return Found(scores.circuit(n, threshold=threshold), table([]), f"top({how})")


@spoken
def greedy(
    model: Loaded,
    prompts: Given | Iterable[Given],
    metric: str = "logit_diff",
    *,
    n: int = 0,
    tolerance: float | None = None,
    every: int = 1,
    start: Circuit | None = None,
    absolute: bool = True,
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    out: str | Path | None = None,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> Found:
    """Take away the edge whose removal costs least, again and again.

    Before each step, every edge that is left is removed by itself and the circuit run: so a step is
    as many circuits as there are edges.

    Args:
        model: from `load`.
        prompts: one or several.
        metric: on the output.
        n: stop when no more edges than this are left.
        tolerance: stop before the metric's mean over prompts is further than this from where it
            began; None: never.
        every: how many edges go at a step, the cheapest ones.
        start: where to begin, such as ``scores.circuit(500)``; all edges unless given.
        absolute: a removal costs as much as the metric changes; else as much as it gets worse.
        ablation: what edges outside carry, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        memory: bytes besides the model, or a text.
        out: a folder for what is measured: the same call goes on from there.
        workers: who runs the circuits of each step, as of `run`.
        progress: show a bar, or an `Observer`, who is told the cost first.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs.
        Cancelled: the observer wanted no more.

    >>> import microtome as mt
    >>> model, prompts = mt.load(), mt.tasks.ioi(1)
    >>> start = mt.circuits.score(model, prompts, level="node").circuit(4)
    >>> len(greedy(model, prompts, n=len(start) // 2, every=5, start=start).circuit) > 0
    True
    """
    trial = Trial.by(model, prompts, metric, ablation, reference, memory)
    begin = Circuit.full(trial.graph) if start is None else start
    trial.check([begin])
    if n < 0 or every < 1:
        raise CircuitError(f"n is at least 0 and every at least 1, not {n} and {every}.")
    if tolerance is not None and not tolerance >= 0:
        raise CircuitError(f"tolerance is at least 0, or None, not {tolerance}.")
    method = {
        "search": "greedy", "n": n, "tolerance": tolerance, "every": every, "absolute": absolute,
        "start": np.flatnonzero(begin.chosen).tolist(),
    }  # fmt: skip
    most = circuits_of_greedy(len(begin), n, every)
    how = f"from {many(len(begin), 'edge')} down to {min(n, len(begin)):,}, {every} at a step"
    cost = priced(trial, "greedy", most, how)
    with searching(trial, method, out, progress, max(0, len(begin) - n), cost, workers) as search:
        found, rows = _peeled(search, begin, n, tolerance, every, absolute)
    how = f"greedy(n={n}, tolerance={tolerance}, every={every})"
    return Found(found, table(rows), how, trial.checked.as_dict())


def circuits_of_greedy(edges: int, n: int, every: int = 1) -> int:
    """How many circuits `greedy` runs at most.

    >>> circuits_of_greedy(4, 2)
    9
    """
    return sum(1 + left for left in range(edges, n, -every))


def _peeled(
    search: Search, circuit: Circuit, n: int, tolerance: float | None, every: int, absolute: bool
) -> tuple[Circuit, list[Decision]]:
    """What is left of a circuit, and what went."""
    rows: list[Decision] = []
    before, first = (circuit, 0), None
    while len(circuit) > n or tolerance is not None:
        edges = np.flatnonzero(circuit.chosen)
        going = min(every, max(0, len(edges) - n))
        parts = [edges[:0], *(edges[k : k + 1] for k in range(len(edges) if going else 0))]
        now, *others = search.worse(Without(circuit, parts)).tolist()
        first = now if first is None else first
        if tolerance is not None and abs(now - first) > tolerance:
            return before[0].pruned(), rows[: before[1]]
        if not going:
            break
        costs = np.array(others) - now
        cheapest = np.argsort(np.abs(costs) if absolute else costs, kind="stable")[:going]
        before = circuit, len(rows)
        circuit = _without(circuit, edges[cheapest]).pruned()
        rows += [
            (circuit.graph.edges[edges[k]], True, float(costs[k]), len(circuit)) for k in cheapest
        ]
        search.observer.advanced(len(edges) - len(circuit))
    return circuit.pruned(), rows


def _without(circuit: Circuit, edges: Numbers) -> Circuit:
    return Without(circuit, [edges])[0]


# ------------------------------------------------------------------------------------------- acdc


@spoken
def acdc(
    model: Loaded,
    prompts: Given | Iterable[Given],
    threshold: float,
    metric: str = "kl",
    *,
    order: str | int | Sequence[str] = "last",
    start: Circuit | None = None,
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    out: str | Path | None = None,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
) -> Found:
    """Automatic circuit discovery: go over all edges once, and keep those that are needed.

    Readers come from the last to the first. An edge goes for good if the metric's mean over prompts
    gets worse by less than the threshold. What is read by nobody any more goes without a run.

    Args:
        model: from `load`.
        prompts: one or several.
        threshold: τ, in the metric's unit.
        metric: on the output; the paper's is ``"kl"``, from the model's prediction.
        order: of the writers of a reader, which changes what is found: ``"last"`` or ``"first"``
            comes first, as a pass gets to them; a number, the seed of a shuffle; or all edges by
            name in an order of your own.
        start: where to begin; all edges unless given.
        ablation: what edges outside carry, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        memory: bytes besides the model, or a text.
        out: a folder for what is measured: the same call goes on from there.
        workers: who runs the circuits of each step, as of `run`.
        progress: show a bar, or an `Observer`, who is told the cost first.

    Raises:
        CircuitError, PromptError, MetricError: found before anything runs.
        Cancelled: the observer wanted no more.

    Source: Conmy et al. 2023 (arXiv:2304.14997), algorithm 1.

    >>> import microtome as mt
    >>> model, prompts = mt.load(), mt.tasks.ioi(1)
    >>> start = mt.circuits.score(model, prompts, level="node").circuit(4)
    >>> acdc(model, prompts, 0.1, "logit_diff", start=start).circuit <= start
    True
    """
    trial = Trial.by(model, prompts, metric, ablation, reference, memory)
    begin = Circuit.full(trial.graph) if start is None else start
    trial.check([begin])
    if np.isnan(threshold):
        raise CircuitError("threshold is a number, in the metric's unit, not NaN.")
    edges = [n for n in in_order(trial.graph, order) if begin.chosen[n]]
    method = {
        "search": "acdc", "threshold": threshold, "order": edges,
        "start": np.flatnonzero(begin.chosen).tolist(),
    }  # fmt: skip
    cost = priced(
        trial, "acdc", len(edges) + 1, f"τ = {threshold}, {many(len(edges), 'edge')} once each"
    )
    with searching(trial, method, out, progress, len(edges), cost, workers) as search:
        found, rows = _decided(search, begin, edges, threshold)
    shown = order if isinstance(order, str | int) else "own"
    how = f"acdc(threshold={threshold}, order={shown!r})"
    return Found(found, table(rows), how, trial.checked.as_dict())


def in_order(graph: Graph, order: str | int | Sequence[str]) -> list[int]:
    """All edges in the order in which `acdc` goes over them.

    Raises:
        CircuitError: there is no such order, or edges are missing in it.

    >>> graph = Graph(n_layers=1, n_heads=1, d_model=4)
    >>> [graph.edges[n] for n in in_order(graph, "last")][:3]
    ['m0->logits', 'a0.h0->logits', 'input->logits']
    """
    order = single(order)
    if not isinstance(order, str | int):
        given = [graph.number(edge) for edge in order]
        if sorted(given) != list(range(len(graph))):
            raise CircuitError(f"An order has each of the {many(len(graph), 'edge')} once.")
        return given
    if isinstance(order, str) and order not in ("last", "first"):
        raise CircuitError(
            f"No order is called {order!r}: the writer that comes 'last' or 'first' in a pass is "
            "first tried; or give a seed, or all edges."
        )
    rng = np.random.default_rng(order if isinstance(order, int) else 0)
    writers, readers = graph.ends
    found: list[int] = []
    for reader in reversed(range(len(graph.readers))):
        own: Numbers = np.flatnonzero(readers == reader)
        if isinstance(order, int):
            own = rng.permutation(own)
        elif order == "last":
            own = own[np.argsort(-writers[own])]
        found += own.tolist()
    return found


def _decided(
    search: Search, circuit: Circuit, edges: Sequence[int], threshold: float
) -> tuple[Circuit, list[Decision]]:
    """What is kept of a circuit, and each decision.

    The next edges are run on the guess that all of them go; what was run behind one that stays is
    thrown away. So many at a time as the guess has held lately.
    """
    rows: list[Decision] = []
    [now] = search.worse([circuit]).tolist()
    at, ahead = 0, 1
    while at < len(edges):
        some, chain = edges[at : at + ahead], [circuit]
        for edge in some:
            chain.append(_without(chain[-1], np.array([edge])))
        values = _known(search, chain, now)
        for edge, before, value in zip(some, chain[:-1], values, strict=True):
            cost, goes = value - now, value - now < threshold
            circuit = _without(before, np.array([edge])) if goes else before
            rows.append((circuit.graph.edges[edge], bool(goes), float(cost), len(circuit)))
            now, at = (value if goes else now), at + 1
            search.observer.advanced(1)
            if not goes:
                break
        ahead = min(AHEAD, 2 * ahead) if goes else max(1, ahead // 2)
    return circuit.pruned(), rows


def _known(search: Search, chain: Sequence[Circuit], now: float) -> list[float]:
    """How much worse each of a chain is behind its first; what nobody reads changes nothing."""
    pruned = [_reaching(one) for one in chain]
    unlike = list(dict.fromkeys(one for one in pruned if one != pruned[0]))
    values = search.worse(unlike).tolist() if unlike else []
    known = {pruned[0]: now, **dict(zip(unlike, values, strict=True))}
    return [known[one] for one in pruned[1:]]


def _reaching(circuit: Circuit) -> Circuit:
    """Without the edges into nodes from which no way leads to the logits."""
    graph, mask = circuit.graph, circuit.mask.copy()
    read = np.append(np.zeros(len(graph.writers), dtype=bool), True)
    for writer in reversed(range(len(graph.writers))):
        read[writer] = (mask[writer] & read[graph.node_of_reader]).any()
    mask &= read[graph.node_of_reader]
    return Circuit(graph, mask[graph.ends])
