"""Scores: how much worse a model does without each edge, or each node; and circuits by them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from microtome.amounts import many
from microtome.circuits.ablations import Ablation
from microtome.circuits.auditing import Ablated, Audited, names_of
from microtome.circuits.circuit import Circuit
from microtome.circuits.clean import Array
from microtome.circuits.elsewhere import lent
from microtome.circuits.graph import Graph, Numbers
from microtome.circuits.measures import worse
from microtome.circuits.methods import Method, method_of
from microtome.circuits.running import attributes
from microtome.circuits.trial import Trial
from microtome.engines.approximate.audit import DRAWN, STRONGEST
from microtome.engines.approximate.method import Method as Approximation
from microtome.engines.observer import Observer, observed
from microtome.errors import CircuitError, there_are
from microtome.figures.mapped import WHY_EXACT
from microtome.notebook import html_line, html_table
from microtome.paths import at_home, settled
from microtome.prompts.prompts import Given
from microtome.readings.registry import readings
from microtome.results import places, provenance, stores
from microtome.spoken import spoken
from microtome.verbs.model import Model
from microtome.workers import Workers

LEVELS = ("edge", "node")
KIND = "circuit scores"
APPROXIMATE = "approximate"
AUDIT = 64
"""Cells of scores by gradients that are exact, unless told otherwise."""
WHY = {STRONGEST: "strongest", DRAWN: "drawn"}


@spoken
@dataclass(frozen=True, eq=False)
class Scores:
    """How much worse a metric is without each edge or node.

    Attributes:
        data: ``score`` over ``prompt`` and ``edge`` (or ``node``), in the metric's unit, more than
            0 where the edge helps: clean − ablated where more is better, ablated − clean for
            ``kl``, losses and ``rank``. ``mean`` is that over prompts, ``clean`` the metric of
            the model itself. Coordinates are the names. Of scores by gradients, ``why_exact`` is 0
            where a score is approximate, 1 where it is exact as one of the strongest, 2 where it
            was drawn; ``approximate`` is what the gradients say everywhere.
    """

    data: xr.Dataset

    @classmethod
    def of_nodes(
        cls, graph: Graph, inputs: Array, heads: Array, mlps: Array, metric: str
    ) -> Scores:
        """Scores of nodes out of sweeps that patch each of them.

        Args:
            graph: of the model.
            inputs: the effects of ``patch embed``, ``[prompt]``.
            heads: of ``patch L*.z.h*``, ``[prompt, layer, head]``.
            mlps: of ``patch L*.mlp_out``, ``[prompt, layer]``.
            metric: what they are effects on.
        """
        layers = np.concatenate([heads, mlps[..., None]], axis=-1)
        effects = np.concatenate([inputs[:, None], layers.reshape(len(inputs), -1)], axis=1)
        [asked] = readings(metric)
        scores = worse(asked) * effects
        data = xr.Dataset(
            {"score": (("prompt", "node"), scores), "mean": ("node", scores.mean(axis=0))},
            {"node": np.array([writer.name for writer in graph.writers], dtype=object)},
            {
                "kind": KIND, "metric": metric, "method": "exact", "level": "node",
                "ablation": "patch", "graph": json.dumps(graph.cfg),
            },
        )  # fmt: skip
        return cls(data)

    @property
    def level(self) -> str:
        """``"edge"`` or ``"node"``."""
        return str(self.data.attrs["level"])

    @cached_property
    def graph(self) -> Graph:
        """The graph of the model."""
        return Graph.by(json.loads(self.data.attrs["graph"]))

    @property
    def mean(self) -> Array:
        """Over prompts, ``[edge]`` or ``[node]``."""
        found: Array = self.data["mean"].values
        return found

    @property
    def audit(self) -> Mapping[str, Any] | None:
        """How good scores by gradients are, as `Effects.audit` says it of effects (edited − clean);
        None of exact ones."""
        found = self.data.attrs.get("audit")
        return None if found is None else json.loads(found)

    def exact_cells(self) -> pd.DataFrame:
        """The cells of scores by gradients that are exact: prompt, name (and its number), why
        (``strongest`` or ``drawn``), and both scores; the strongest first.

        Raises:
            CircuitError: all scores are exact, or an older microtome did not keep which are.
        """
        if WHY_EXACT not in self.data:
            raise CircuitError(
                f"Of these scores, by {self.data.attrs['method']!r}, nothing says which are exact: "
                "either all are, or they were saved before that was kept. Score with "
                "method='eap', or of nodes 'atp', for approximate ones."
            )
        why = self.data[WHY_EXACT].values
        at = np.nonzero(why)
        frame = pd.DataFrame(
            {
                "prompt": at[0],
                self.level: self.data[self.level].values[at[1]].tolist(),
                "number": at[1],
                "why": [WHY[one] for one in why[at].tolist()],
                "approximate": self.data[APPROXIMATE].values[at],
                "exact": self.data["score"].values[at],
            }
        )
        size = frame["exact"].abs()
        return frame.loc[size.sort_values(ascending=False, kind="stable").index].reset_index(
            drop=True
        )

    def __len__(self) -> int:
        return len(self.mean)

    def top(self, n: int = 10) -> pd.DataFrame:
        """The n strongest, by |mean|: name, mean and the least and the most of any prompt.

        Raises:
            CircuitError: n is below 0.
        """
        if n < 0:
            raise CircuitError(f"The strongest n={n} of {len(self):,}: n is at least 0.")
        chosen = self._order(absolute=True)[:n]
        each = self.data["score"].values[:, chosen]
        return pd.DataFrame(
            {
                self.level: self.data[self.level].values[chosen],
                "mean": self.mean[chosen],
                "least": each.min(axis=0),
                "most": each.max(axis=0),
            }
        )

    def circuit(
        self,
        n: int | None = None,
        *,
        threshold: float | None = None,
        absolute: bool = True,
        pruned: bool = True,
    ) -> Circuit:
        """The circuit of the strongest edges, or of all edges between the strongest nodes.

        Of nodes, the input and the logits are always among them: of 0 there is ``input->logits``.

        Args:
            n: how many; of equal ones those earlier in the graph.
            threshold: or all that are at least this strong.
            absolute: by |score|; or by the score, where what hurts is weaker than what does
                nothing.
            pruned: without what leads nowhere (`Circuit.pruned`), so that there may be fewer.

        Raises:
            CircuitError: not one of n and threshold is given, or there are not so many.

        Source: Hanna et al. 2024 (arXiv:2403.17806), section 3; Mueller et al. 2025
        (arXiv:2504.13151), section 3.
        """
        chosen = self._chosen(n, threshold, absolute)
        if self.level == "edge":
            within = np.zeros(len(self.graph), dtype=bool)
            within[chosen] = True
            circuit = Circuit(self.graph, within, self.mean)
        else:
            names = self.data["node"].values[chosen].tolist()
            circuit = Circuit.among(self.graph, names)
        return circuit.pruned() if pruned else circuit

    def _chosen(self, n: int | None, threshold: float | None, absolute: bool) -> Numbers:
        if n is not None and threshold is None:
            if not 0 <= n <= len(self):
                raise CircuitError(
                    f"n={n} of {len(self):,} {self.level}s: ask for 0 to {len(self):,}."
                )
            return self._order(absolute)[:n]
        if threshold is not None and n is None:
            if np.isnan(threshold):
                raise CircuitError("threshold is a number, in the metric's unit, not NaN.")
            return np.flatnonzero((np.abs(self.mean) if absolute else self.mean) >= threshold)
        raise CircuitError(
            f"scores.circuit takes n or threshold=, one of them: the strongest n of {len(self):,} "
            f"{self.level}s, or all that are at least so strong."
        )

    def _order(self, absolute: bool) -> Numbers:
        """All of them, the strongest first; those that are no number last."""
        strength = np.abs(self.mean) if absolute else self.mean
        return np.argsort(-np.nan_to_num(strength, nan=-np.inf), kind="stable")

    def save(self, path: str | Path) -> Path:
        """Write to a zarr directory, in the place of any there; `open_scores` reads it.

        Raises:
            EffectsError: something else is in the way, or the system refuses.
        """
        stores.write(at_home(path), self.data)
        return at_home(path)

    def __repr__(self) -> str:
        attrs, prompts = self.data.attrs, many(self.data.sizes["prompt"], "prompt")
        return (
            f"<Scores of {many(len(self), self.level)} on {attrs['metric']}, {attrs['ablation']}, "
            f"{attrs['method']}; {prompts}>"
        )

    def _repr_html_(self) -> str:
        """In a notebook: the strongest of them."""
        table = self.top().astype(object)
        return html_line(repr(self)) + html_table(tuple(table.columns), table.values.tolist())


@spoken
def open_scores(path: str | Path) -> Scores:
    """Read what `Scores.save` wrote.

    Raises:
        CircuitError: it is something else.
        EffectsError: it is not there, or damaged.
    """
    with places.legible(path):
        data = stores.read(at_home(path))
    if data.attrs.get("kind") != KIND:
        raise CircuitError(f"{path} holds no scores of a circuit but a map of effects.")
    return Scores(data)


@spoken
def score(
    model: Model,
    prompts: Given | Iterable[Given],
    metric: str = "logit_diff",
    *,
    method: str | Method | Approximation = "exact",
    level: str = "edge",
    ablation: str | Ablation = "patch",
    reference: Iterable[Given] = (),
    memory: int | str | None = None,
    out: str | Path | None = None,
    workers: Workers | str | None = None,
    progress: bool | Observer = True,
    audit: int = AUDIT,
    seed: int = 0,
) -> Scores:
    """Score every edge, or node, of a model by what is lost where it alone is ablated.

    Args:
        model: from `load`.
        prompts: one or several, with what the ablation needs: for ``"patch"`` a donor.
        metric: on the output.
        method: ``"exact"``, a cell of a sweep for each; ``"removal"``, the same by running
            circuits; an approximation by gradients, of edges `EAP` or `EAPIG`, of nodes `AtP`
            and its like; or a `Method`.
        level: ``"edge"`` or ``"node"``.
        ablation: ``"patch"``, ``"zero"`` or ``"mean"``, as of `run`.
        reference: the prompts that ``"mean"`` averages over.
        memory: bytes besides the model, or a text.
        out: a folder for what is done, so that the same call goes on from there after whatever
            stopped it: sweeps; circuits, some at a time; of scores by gradients some prompts at a
            time, and the audit.
        workers: who runs the units of exact sweeps, as `sweep` takes them, or the circuits of
            ``"removal"``; other methods refuse.
        progress: show a bar, or an `Observer`.
        audit: how many cells of scores by gradients, each an edge or a node on a prompt, are
            computed exactly: half of them the strongest of all, whatever their kind, half drawn at
            random from all kinds, layers and sizes.
        seed: of that draw.

    Raises:
        CircuitError, PromptError, MetricError, SweepError: found before anything runs.
        EffectsError: ``out`` holds something else, is in use, or cannot be written to.
        VerificationError: what was computed again differs by more than rounding.
        Cancelled: the observer wanted no more.

    >>> import microtome as mt
    >>> scores = mt.circuits.score(mt.load(), mt.tasks.ioi(2), level="node")
    >>> len(scores), len(scores.circuit(10).nodes) <= 12
    (55, True)
    """
    chosen = method_of(method).with_workers(workers).with_audit(audit, seed)
    if level not in LEVELS:
        raise CircuitError(f"No level is called {level!r}; {there_are(level, LEVELS)}")
    trial = Trial.by(model, prompts, metric, ablation, reference, memory)
    place = None if out is None else settled(out)
    with (
        observed(progress, chosen.cells(trial, level), 1) as observer,
        provenance.held(model),
        lent(trial, workers) as trial,
    ):
        found = chosen.measured(model, trial, level, observer, place)
    return _labelled(trial, chosen, level, found)


def _labelled(trial: Trial, method: Method, level: str, found: Ablated) -> Scores:
    metric, scores = trial.asked[0], trial.worse * found.effects
    unit = {"unit": metric.metric.unit, "about": f"how much worse {metric} is without it"}
    data = xr.Dataset(
        {
            "score": (("prompt", level), scores, unit),
            "mean": (level, scores.mean(axis=0), unit),
            "clean": ("prompt", trial.clean[str(metric)], {"unit": metric.metric.unit}),
            **_audited(trial, found.audited, ("prompt", level), unit),
        },
        {
            level: np.array(names_of(trial.graph, level), dtype=object),
            "prompt": np.arange(len(trial.encoded)),
            "text": ("prompt", np.array([one.tokens.text for one in trial.encoded], dtype=object)),
        },
        {
            **attributes(trial),
            "kind": KIND,
            "metric": str(metric),
            "method": method.name,
            "level": level,
            **({} if found.audited is None else {"audit": json.dumps(found.audited.found)}),
        },
    )
    return Scores(data)


def _audited(
    trial: Trial, found: Audited | None, dims: tuple[str, str], unit: Mapping[str, str]
) -> dict[str, Any]:
    """Which scores are exact, and what the gradients say of all."""
    if found is None:
        return {}
    about = {"about": "1 strongest, 2 drawn: computed exactly; 0: approximate"}
    return {
        APPROXIMATE: (dims, trial.worse * found.approximate, unit),
        WHY_EXACT: (dims, found.why, about),
    }
