"""Methods of scoring: how the effect of ablating one edge, or one node, is come by."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import numpy as np

from microtome.circuits import gradients
from microtome.circuits.ablations import Ablation, Mean
from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import Numbers
from microtome.circuits.trial import Array, Trial, ticking
from microtome.circuits.without import Without
from microtome.engines.approximate.eap import EAP, EAPIG
from microtome.engines.approximate.method import Method as Approximation
from microtome.engines.approximate.text import METHODS as APPROXIMATIONS
from microtome.engines.approximate.text import method_of as approximation_of
from microtome.engines.observer import Observer, Relay
from microtome.errors import CircuitError, did_you_mean, listing
from microtome.plan.audit import Audit
from microtome.plan.plan import Plan, make_plan
from microtome.prompts.prompt import Prompt
from microtome.results.effects import Effects
from microtome.verbs.asking import asking
from microtome.verbs.edges import edges as edges_of
from microtome.verbs.model import Model
from microtome.verbs.sweep import sweep
from microtome.workers import Workers

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

    def audited(
        self, trial: Trial, level: str, effects: Array, observer: Observer
    ) -> tuple[Array, Mapping[str, Any] | None]:
        """Effects with what is known of how good they are; None of those that are exact, and of
        those whose sweeps have been audited each by itself."""
        return effects, None

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
        if self.exact:
            trial.checked.hear_of(effects, str(metric))
        found: Array = effects.delta(str(metric)).values
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
        return self._without(trial, [*np.arange(len(trial.graph))[:, None]], observer)

    def nodes(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """The full circuit without what leaves each."""
        writers = np.arange(len(trial.graph.writers))
        leaving = [np.flatnonzero(trial.graph.ends[0] == writer) for writer in writers]
        return self._without(trial, leaving, observer)

    @staticmethod
    def _without(trial: Trial, parts: Sequence[Numbers], observer: Observer) -> Array:
        circuits = Without(Circuit.full(trial.graph), parts)
        name = str(trial.asked[0])
        measured = trial.measure(circuits, ticking(observer))[name]
        return measured - trial.clean[name][:, None]


@dataclass(frozen=True)
class Approximated(Exact):
    """By gradients: a fixed number of passes, with an audit.

    All edges are made of the same passes (`circuits.gradients`), and audited together; where shares
    of the stream are no sums, as what heads add is normed together first, there is a sweep for each
    kind of edges, as there is for each kind of nodes.

    Args:
        by: the approximation: of edges `EAP` or `EAPIG`, of nodes `AtP` or another of sites.
        audit: how many cells are exact, of all edges, or of each sweep.
    """

    exact: ClassVar[bool] = False

    by: Approximation = field(default_factory=EAP)
    audit: int = 64

    @property
    def name(self) -> str:  # type: ignore[override]
        """As the approximation's text."""
        return str(self.by)

    def with_workers(self, workers: Workers | str | None) -> Method:
        """Some passes in this process, which nobody else is given."""
        return Method.with_workers(self, workers)

    def edges(self, model: Model, trial: Trial, observer: Observer, out: Path | None) -> Array:
        """All in one pass, of which no folder keeps anything; sweeps where shares are no sums."""
        if not (isinstance(self.by, EAP | EAPIG) and gradients.takes(trial)):
            return super().edges(model, trial, observer, out)
        # What a sweep would refuse is refused here: asked of an edge that every model has.
        plan_of(model, trial, "embed -> final_in", self.by)
        return gradients.effects(trial, self.by, ticking(observer))

    def audited(
        self, trial: Trial, level: str, effects: Array, observer: Observer
    ) -> tuple[Array, Mapping[str, Any] | None]:
        """The edges of one pass, together."""
        if level != "edge" or not gradients.takes(trial):
            return effects, None
        return gradients.audited(trial, effects, Audit(self.audit), ticking(observer))

    def _asked(self) -> dict[str, Any]:
        return {"method": self.by, "audit": self.audit}


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
    return make_plan(question, budget=trial.budget, whole=model.whole, method=method)


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
    if isinstance(given, Approximation) or given.partition("(")[0] in APPROXIMATIONS:
        by = approximation_of(given)
        assert by is not None, "exact is no approximation"
        return Approximated(by=by)
    if given not in METHODS:
        known = [*METHODS, *APPROXIMATIONS]
        hint = did_you_mean(str(given), known)
        raise CircuitError(f"No method is called {given!r}; there are: {listing(known)}.{hint}")
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
