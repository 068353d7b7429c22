"""Methods of scoring: how the effect of ablating one edge, or one node, is come by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from microtome.amounts import whole_of
from microtome.circuits import auditing
from microtome.circuits.ablations import Ablation, Mean
from microtome.circuits.auditing import Ablated, Auditing
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.gradients import OnePass
from microtome.circuits.journal import kept
from microtome.circuits.search import identity
from microtome.circuits.trial import Trial, ticking
from microtome.circuits.without import Without, removed
from microtome.engines.approximate.eap import EAP, EAPIG
from microtome.engines.approximate.method import Method as Approximation
from microtome.engines.approximate.text import METHODS as APPROXIMATIONS
from microtome.engines.approximate.text import method_of as approximation_of
from microtome.engines.observer import Observer, Relay
from microtome.errors import CircuitError, there_are
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan, make_plan
from microtome.prompts.prompt import Prompt
from microtome.results import provenance
from microtome.results.effects import Effects
from microtome.results.sinks import StoreSink
from microtome.verbs.asking import asking
from microtome.verbs.edges import edges as edges_of
from microtome.verbs.model import Model
from microtome.verbs.options import widened_for
from microtome.verbs.sweep import sweep
from microtome.workers import Workers

AT_ONCE = 512
"""Circuits of removals that are run, and kept, together: so much is lost at most."""

NODES = {"embed": "input", "L*.z.h*": "a{}.h{}", "L*.mlp_out": "m{}"}
"""Addresses that together are all nodes that write → how these are called."""


class Method(ABC):
    """A way to the effects of ablations: the first metric with each, less the clean one."""

    name: ClassVar[str]
    exact: ClassVar[bool] = False

    @abstractmethod
    def edges(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """Of each edge of the graph, ``[prompt, edge]``."""

    @abstractmethod
    def nodes(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """Of each writer of the graph, ``[prompt, writer]``."""

    def with_workers(self, workers: Workers | str | None) -> Method:
        """The same, with workers who run its units.

        Raises:
            CircuitError: it has none that could be given away.
        """
        if workers is None:
            return self
        raise CircuitError(
            f"The method {self.name!r} has no units that workers could run: score with "
            'method="exact", whose sweeps they take, or "removal"; or leave workers= out.'
        )

    def with_audit(self, cells: int, seed: int) -> Method:
        """The same, with so many exact cells where it is none, drawn by a seed."""
        return self

    def measured(
        self, model: Model, trial: Trial, level: str, observer: Observer, out: Path | None
    ) -> Ablated:
        """Of each edge or node, with what is known of how good that is where it is not exact."""
        each = self.edges if level == "edge" else self.nodes
        return Ablated(each(model, trial, observer, out))

    def cells(self, trial: Trial, level: str) -> int:
        """How many it computes."""
        things = len(trial.graph) if level == "edge" else len(trial.graph.writers)
        return things * len(trial.encoded)


@dataclass(frozen=True)
class Exact(Method):
    """A cell for each edge, or node: sweeps over all of them, on the walk, verified.

    Args:
        verify: how many cells of each sweep are computed again on the reference path.
        workers: who runs the units of the sweeps.
    """

    name: ClassVar[str] = "exact"
    exact: ClassVar[bool] = True

    verify: int = 4
    workers: Workers | str | None = None

    def with_workers(self, workers: Workers | str | None) -> Method:
        """The same, with workers who run the units of its sweeps."""
        return self if workers is None else replace(self, workers=workers)

    def edges(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """A sweep for each kind of writer and of reader."""
        found = np.full((len(trial.encoded), len(trial.graph)), np.nan)
        for kind in edges_of(model).kinds:
            name = f"{kind.writer}-{kind.reader}"
            effects = self._effects(model, trial, kind.text, observer, out, name)
            names = kind.names(model.anatomy.dims)
            there = names != ""
            numbers = [trial.graph.number(edge) for edge in names[there].tolist()]
            found[:, numbers] = effects[:, there]
        return found

    def nodes(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """A sweep for the input, one for heads, one for MLPs."""
        found = np.full((len(trial.encoded), len(trial.graph.writers)), np.nan)
        numbers = {writer.name: n for n, writer in enumerate(trial.graph.writers)}
        for address, called in NODES.items():
            name = address.replace("*", "").replace(".", "-")
            effects = self._effects(model, trial, address, observer, out, name)
            for at in np.ndindex(*effects.shape[1:]):
                found[:, numbers[called.format(*at)]] = effects[(slice(None), *at)]
        return found

    def _effects(
        self,
        model: Model,
        trial: Trial,
        address: str,
        observer: Observer,
        out: Path | None,
        name: str,
    ) -> Array:
        """Of a sweep, ``[prompt, *stars]``."""
        metric = trial.asked[0]
        effects: Effects = sweep(
            model,
            [one.prompt for one in trial.encoded],
            edit_of(trial.ablation, address),
            metrics=str(metric),
            verify=self.verify,
            memory=trial.budget.memory,
            reference=references_of(trial.ablation),
            progress=Part(observer),
            out=None if out is None else out / f"{name}.zarr",
            workers=self.workers,
            **self._asked(),
        )
        return self._read(effects, trial, str(metric))

    def _read(self, effects: Effects, trial: Trial, metric: str) -> Array:
        trial.checked.hear_of(effects, metric)
        found: Array = effects.delta(metric).values
        return found

    def _asked(self) -> dict[str, Any]:
        """What else the sweeps are told."""
        return {}


@dataclass(frozen=True)
class Removal(Method):
    """A circuit for each edge, with all others in it; a node without all that leaves it.

    The same numbers as `Exact`, by whole passes: slower, and another way to them.
    """

    name: ClassVar[str] = "removal"
    exact: ClassVar[bool] = True

    def with_workers(self, workers: Workers | str | None) -> Method:
        """The same: the trial has them, who run its circuits."""
        return self

    def edges(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """The full circuit without each."""
        return self._without(trial, "edge", len(trial.graph), observer, out)

    def nodes(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """The full circuit without what leaves each."""
        return self._without(trial, "node", len(trial.graph.writers), observer, out)

    @staticmethod
    def _without(
        trial: Trial, level: str, things: int, observer: Observer, out: Path | None
    ) -> Array:
        """Some at a time, with a journal or without: so the batches are the same ones."""
        parts = [removed(trial.graph, level, number) for number in range(things)]
        circuits = Without(Circuit.full(trial.graph), parts)
        name, tick = str(trial.asked[0]), ticking(observer)

        def measured(some: Sequence[Circuit]) -> Array:
            return trial.measure(some, tick)[name]

        asked = {} if out is None else identity(trial, {"scores": "removal", "level": level})
        found = []
        with kept(out, asked) as journal:
            for first in range(0, things, AT_ONCE):
                some, known = circuits[first : first + AT_ONCE], journal.at < len(journal.steps)
                found.append(journal.step(some, partial(measured, some)))
                if known:  # they are among those that the observer was told of
                    tick(len(some) * len(trial.encoded))
        return np.concatenate(found, axis=1) - trial.clean[name][:, None]


@dataclass(frozen=True)
class Approximated(Exact):
    """By gradients: a fixed number of passes, with an audit.

    All edges are made of the same passes (`circuits.gradients`); of nodes there is a sweep for each
    kind. Some of all are computed exactly, whatever their kind (`circuits.auditing`).

    Args:
        by: the approximation: of edges `EAP` or `EAPIG`, of nodes `AtP` or another of sites.
        audit: how many cells are exact.
        seed: of their draw.
    """

    exact: ClassVar[bool] = False

    by: Approximation = field(default_factory=EAP)
    audit: int = 64
    seed: int = 0

    @property
    def name(self) -> str:  # type: ignore[override]
        """As the approximation's text."""
        return str(self.by)

    def with_workers(self, workers: Workers | str | None) -> Method:
        """Some passes in this process, which nobody else is given."""
        return Method.with_workers(self, workers)

    def with_audit(self, cells: int, seed: int) -> Method:
        """The same, with so many exact cells, drawn by a seed."""
        return replace(self, audit=Audit(cells).cells, seed=whole_of(seed, what="seed"))

    def cells(self, trial: Trial, level: str) -> int:
        """How many it computes, those of the audit twice."""
        whole = super().cells(trial, level)
        return whole + min(whole, self.audit)

    def measured(
        self, model: Model, trial: Trial, level: str, observer: Observer, out: Path | None
    ) -> Ablated:
        """Some prompts after the other, and then the audit; where it is kept, what is missing."""
        # What a sweep would refuse is refused here: asked of what every model has.
        plan_of(model, trial, "embed -> final_in" if level == "edge" else "embed", self.by)
        edges = self._one_pass(trial, observer) if level == "edge" else None
        units = [] if edges is None else edges.units
        place = None if out is None else out / f"{level}s.zarr"
        asked = {"method": self.name, "level": level, "audit": self.audit, "seed": self.seed}
        with auditing.keeping(place, trial, asked, len(units) + 1) as sink:
            if place is not None and isinstance(sink, StoreSink) and sink.finished:
                return auditing.opened(place, trial)
            with provenance.held(trial.model, sink.discard):
                way = Auditing(trial, level, self.audit, self.seed, sink, observer)
                if edges is None:
                    rough = super().nodes(model, trial, observer, out)
                else:
                    rough = way.rough(units, edges.effects)
                found = way.audited(rough, len(units))
            sink.finish(auditing.saved(found, trial, level))
        return found

    def edges(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """By gradients, and of those of the audit the exact effects."""
        return self.measured(model, trial, "edge", observer, out).effects

    def nodes(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """Likewise."""
        return self.measured(model, trial, "node", observer, out).effects

    def _one_pass(self, trial: Trial, observer: Observer) -> OnePass:
        assert isinstance(self.by, EAP | EAPIG), "all others refuse edges"
        return OnePass(trial, self.by, ticking(observer))

    def _read(self, effects: Effects, trial: Trial, metric: str) -> Array:
        """What the gradients say; which of it is exact is chosen among all nodes together."""
        found: Array = effects.approximate(metric).values
        return found

    def _asked(self) -> dict[str, Any]:
        return {"method": self.by, "audit": 1}


def edit_of(ablation: Ablation, address: str) -> str:
    """The edit that ablates an address.

    Raises:
        CircuitError: there is none.
    """
    if not ablation.edit:
        raise CircuitError(
            f"The ablation {ablation.name!r} is no edit that a sweep makes: score with "
            'method="removal", which runs a circuit for each edge.'
        )
    return f"{ablation.edit} {address}"


def references_of(ablation: Ablation) -> list[Prompt]:
    """The prompts that an ablation averages over."""
    return [one.prompt for one in ablation.reference] if isinstance(ablation, Mean) else []


def plan_of(model: Model, trial: Trial, address: str, method: Approximation) -> Plan:
    """The plan of a sweep that ablates an address, approximated; what cannot be is refused."""
    question = asking(
        model,
        [one.prompt for one in trial.encoded],
        edit_of(trial.ablation, address),
        metrics=[str(trial.asked[0])],
        reference=references_of(trial.ablation),
    )
    budget = widened_for(model, trial.budget)
    return make_plan(question, budget=budget, whole=model.whole, method=method)


METHODS: Mapping[str, Method] = MappingProxyType(
    {method.name: method for method in (Exact(), Removal())}
)
"""Name → method, as it is unless told otherwise."""


def method_of(given: str | Method | Approximation) -> Method:
    """A method, or that of a name; an approximation is one, too.

    Raises:
        CircuitError: there is no such one.
    """
    if isinstance(given, Method):
        return given
    if isinstance(given, Approximation) or str(given).partition("(")[0] in APPROXIMATIONS:
        by = approximation_of(given)
        assert by is not None, "exact is no approximation"
        return Approximated(by=by)
    if given not in METHODS:
        known = [*METHODS, *APPROXIMATIONS]
        raise CircuitError(f"No method is called {given!r}; {there_are(given, known)}")
    return METHODS[given]


class Part(Relay):
    """Tells of one of several sweeps that are shown as one."""

    def planned(self, cells: int, units: int) -> None:
        """It was, with all the others."""

    def expected(self, cells: int, units: int, flops: float) -> None:
        """Of one sweep, not of all."""

    def unit_done(self, number: int, of: int) -> None:
        """Of one sweep, not of all."""

    def finishing(self) -> None:
        """Others may follow."""

    def finished(self) -> None:
        """Others may follow."""
