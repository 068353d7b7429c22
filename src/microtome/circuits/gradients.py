"""All edges of a graph by gradients, in one pass: what writers change times what readers feel.

    effect(writer -> reader)  =  Σ (ablated share − own share) · gradient at what the reader reads

over positions and coordinates. Both sides are there after one pass, for all edges at once: a matrix
of writers times one of readers. Nothing is made that is of the size of all edges and of the stream.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.circuit import Circuit
from microtome.circuits.graph import PARTS
from microtome.circuits.trial import Array, Tick, Trial
from microtome.circuits.written import writing
from microtome.engines.approximate.atp import donor_of
from microtome.engines.approximate.audit import said
from microtome.engines.approximate.eap import EAP, EAPIG, MeanRun
from microtome.engines.approximate.precision import widened
from microtome.language.sites import site as find_site
from microtome.passes.backward import Graph, graph
from microtome.passes.hooks import Place, Visit
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.plan.audit import Audit
from microtome.plan.memory.recorded import bytes_of_block
from microtome.prompts.encoding import Encoded
from microtome.stats.auditing import draw

KEPT = 4
"""Copies of what all writers write: the ablated, the model's own, the change, and the products."""


def takes(trial: Trial) -> bool:
    """Whether shares of the stream are sums: not where what heads add is normed together first."""
    return trial.model.anatomy.family.attn_norm is None


@dataclass(frozen=True, eq=False)
class Slopes:
    """The gradients of some prompts of one length.

    Attributes:
        trial: what is asked; its model in float32 at least.
        by: the approximation.
        prompts: the prompts, by number.
    """

    trial: Trial
    by: EAP | EAPIG
    prompts: Sequence[int]

    @property
    def encoded(self) -> list[Encoded]:
        """The prompts."""
        return [self.trial.encoded[prompt] for prompt in self.prompts]

    def effects(self) -> Float[Tensor, "row writer reader"]:
        """Of each edge; of what is none, what comes of it."""
        own, slopes = self._run()
        model, nodes, ablation = self.trial.model, self.trial.graph, self.trial.ablation
        unlike = self.encoded[:1] if ablation.alike else self.encoded
        each = [ablation.values(model, nodes, one) for one in unlike]
        change = (torch.stack(each) - own).flatten(2)
        found = own.new_zeros(len(own), own.shape[1], len(nodes.readers))
        first = 0
        for felt in self._felt(slopes):
            last = first + felt.shape[1]
            before = nodes.written_before(nodes.readers[last - 1])
            found[:, :before, first:last] = change[:, :before] @ felt.mT
            first = last
        return found

    def _felt(self, slopes: MeanRun) -> Iterator[Float[Tensor, "row reader stream"]]:
        """The gradients at what readers read, layer by layer, in the order of the graph."""
        for layer in range(self.trial.graph.n_layers):
            sites = [find_site(f"{part}_in") for part in PARTS]
            heads = [slopes.mean((site, layer)).transpose(1, 2) for site in sites]
            mlp = slopes.mean((find_site("mlp_in"), layer)).unsqueeze(1)
            yield torch.cat([*heads, mlp], dim=1).flatten(2)
        yield slopes.mean((find_site("final_in"), None)).unsqueeze(1).flatten(2)

    def _run(self) -> tuple[Float[Tensor, "row writer pos d_model"], MeanRun]:
        """What everything writes in the prompts' own run, and the gradients."""
        trial, total = self.trial, MeanRun()
        length = len(self.encoded[0].tokens.read)
        kept = torch.empty(
            (len(self.prompts), len(trial.graph.writers), length, trial.graph.d_model),
            dtype=trial.model.dtype,
            device=trial.model.device,
        )

        def take(first: int, view: Tensor) -> None:
            kept[:, first : first + view.shape[2]] = view.detach().transpose(1, 2)

        told = [*writing(trial.graph, take)]
        if isinstance(self.by, EAP):
            total.add(self._graph(self._readers, self.encoded, told).back(), self._readers)
            return kept, total
        ways = self.by.ways(trial.graph.n_layers)
        own = self._graph(ways, self.encoded, told, records=False).found.kept
        donors = self._graph(ways, [*map(donor_of, self.encoded)], records=False).found.kept
        for visit in self.by.visits(ways, own, donors):
            total.add(self._graph(self._readers, self.encoded, [visit]).back(), self._readers)
        return kept, total

    @property
    def _readers(self) -> list[Place]:
        sites = [*(f"{part}_in" for part in PARTS), "mlp_in"]
        found: list[Place] = [
            (find_site(site), n) for n in range(self.trial.graph.n_layers) for site in sites
        ]
        return [*found, (find_site("final_in"), None)]

    def _graph(
        self,
        places: Sequence[Place],
        texts: Sequence[Encoded],
        before: Sequence[Visit] = (),
        records: bool = True,
    ) -> Graph:
        """A pass of the prompts, or of their donors, read as the metric says."""
        model, reading = self.trial.model, self.trial.asked[0]
        hf, anatomy = model.hf, model.anatomy
        looks = [(row, reading.position(one, anatomy.dims)) for row, one in enumerate(texts)]

        def read(logits: Tensor) -> list[Tensor]:
            each = zip(logits.unsqueeze(1), texts, strict=True)
            return [torch.cat([reading.measure(own, own.detach(), one) for own, one in each])]

        ids = ids_of([one.tokens for one in texts], hf)
        return graph(hf, anatomy, ids, places, looks, read, before, records=records)


def effects(trial: Trial, by: EAP | EAPIG, tick: Tick) -> Array:
    """The effect of ablating each edge, to first order, ``[prompt, edge]``.

    Args:
        trial: what is asked; `takes` it.
        by: the approximation.
        tick: is told of cells.
    """
    found = np.empty((len(trial.encoded), len(trial.graph)))
    wide = replace(trial, model=widened(trial.model), kept={})
    writers, readers = trial.graph.ends
    with session(wide.model.hf, wide.model.anatomy):
        for length, alike in trial.by_length(range(len(trial.encoded))):
            at_once = _at_once(wide, length)
            for first in range(0, len(alike), at_once):
                some = alike[first : first + at_once]
                own = Slopes(wide, by, some).effects()
                found[some] = own.double().cpu().numpy()[:, writers, readers]
                tick(len(some) * len(trial.graph))
    return found


def _at_once(trial: Trial, length: int) -> int:
    """How many prompts of so many tokens are taken together."""
    dims, size = trial.model.anatomy.dims, trial.model.itemsize
    shares = KEPT * len(trial.graph.writers) * length * dims.d_model * size
    felt = 3 * len(trial.graph.readers) * length * dims.d_model * size
    made = dims.n_layers * (bytes_of_block(dims, length, size) + dims.n_heads * length**2 * size)
    return max(1, min(trial.rows_at_once(length), trial.budget.memory // (shares + felt + made)))


def audited(
    trial: Trial, rough: Array, audit: Audit, tick: Tick, seed: int = 0
) -> tuple[Array, dict[str, Any]]:
    """The same with some of its cells exact, and what these say of the others.

    A cell is an edge on a prompt; exactly it is a pass of the circuit of all other edges.

    Args:
        trial: what is asked.
        rough: approximate effects, ``[prompt, edge]``.
        audit: how many are exact.
        tick: is told of cells.
        seed: of the draw.
    """
    values, edges = rough.ravel(), len(trial.graph)
    groups = np.tile(trial.graph.ends[1], len(rough))
    drawn = draw(values, groups, audit.cells, np.random.default_rng([seed, len(values)]))
    prompts, numbers = np.divmod(drawn.cells, edges)
    some, which = np.unique(numbers, return_inverse=True)
    circuits = [Circuit(trial.graph, np.arange(edges) != one) for one in some.tolist()]
    pairs = np.stack([prompts, which], axis=1)
    name = str(trial.asked[0])
    measured = trial.measure_pairs(circuits, pairs, tick)[name]
    exact = measured[prompts, which] - trial.clean[name][prompts]
    fine = rough.copy()
    fine[prompts, numbers] = exact

    def named(worst: int) -> dict[str, Any]:
        edge = trial.graph.edges[int(numbers[worst])]
        return {"prompt": int(prompts[worst]), "edge": edge}

    return fine, {"cells": len(numbers), **said(drawn, rough[prompts, numbers], exact, named)}
