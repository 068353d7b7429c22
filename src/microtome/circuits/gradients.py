"""All edges of a graph by gradients, in one pass: what writers change times what readers feel.

    effect(writer -> reader)  =  Σ (ablated share − own share) · gradient at what the reader reads

over positions and coordinates. Both sides are there after one pass, for all edges at once: a matrix
of writers times one of readers. Nothing is made that is of the size of all edges and of the stream.

Where what heads add is normed together first (Gemma 2 and 3, OLMo 2), a head changes what leaves
that norm, *norm(whole with its share replaced) − norm(whole)*, as an exact edge of it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.circuits.clean import Array
from microtome.circuits.graph import PARTS
from microtome.circuits.trial import Tick, Trial
from microtome.circuits.written import mixing, normed, writing
from microtome.engines.approximate.atp import donor_of
from microtome.engines.approximate.eap import EAP, EAPIG, MeanRun
from microtome.engines.approximate.precision import widened
from microtome.language.sites import site as find_site
from microtome.passes.backward import Graph, graph
from microtome.passes.hooks import Place, Visit
from microtome.passes.session import session
from microtome.passes.trace import ids_of
from microtome.plan.memory.recorded import bytes_of_block
from microtome.prompts.encoding import Encoded
from microtome.verbs.options import widened_for

KEPT = 4
"""Copies of what all writers write: the ablated, the model's own, the change, and the products."""

TOKENS = 2048
"""Tokens whose gradients a unit takes, about: so much is lost at most where it is stopped."""


@dataclass(eq=False)
class Written:
    """What everything writes in the prompts' own run.

    Attributes:
        shares: ``[row, writer, pos, d_model]``.
        mixed: per layer what its heads add together, ``[row, pos, d_model]``, where a norm follows.
    """

    shares: Float[Tensor, "row writer pos d_model"]
    mixed: dict[int, Tensor] = field(default_factory=dict)


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
        nodes, change = self.trial.graph, self._change(own).flatten(2)
        found = change.new_zeros(*change.shape[:2], len(nodes.readers))
        first = 0
        for felt in self._felt(slopes):
            last = first + felt.shape[1]
            before = nodes.written_before(nodes.readers[last - 1])
            found[:, :before, first:last] = change[:, :before] @ felt.mT
            first = last
        return found

    def _change(self, own: Written) -> Float[Tensor, "row writer pos d_model"]:
        """What ablating each writer changes of the stream."""
        model, nodes, ablation = self.trial.model, self.trial.graph, self.trial.ablation
        unlike = self.encoded[:1] if ablation.alike else self.encoded
        each = [ablation.values(model, nodes, one) for one in unlike]
        change = torch.stack(each) - own.shares
        for layer, whole in own.mixed.items():
            first = nodes.first_writer(layer)
            heads = slice(first, first + nodes.n_heads)
            change[:, heads] = normed(model, layer, whole, change[:, heads])
        return change

    def _felt(self, slopes: MeanRun) -> Iterator[Float[Tensor, "row reader stream"]]:
        """The gradients at what readers read, layer by layer, in the order of the graph."""
        for layer in range(self.trial.graph.n_layers):
            sites = [find_site(f"{part}_in") for part in PARTS]
            heads = [slopes.mean((site, layer)).transpose(1, 2) for site in sites]
            mlp = slopes.mean((find_site("mlp_in"), layer)).unsqueeze(1)
            yield torch.cat([*heads, mlp], dim=1).flatten(2)
        yield slopes.mean((find_site("final_in"), None)).unsqueeze(1).flatten(2)

    def _run(self) -> tuple[Written, MeanRun]:
        """What everything writes in the prompts' own run, and the gradients."""
        trial, total = self.trial, MeanRun()
        shape = len(self.prompts), len(trial.graph.writers), len(self.encoded[0].tokens.read)
        model = trial.model
        kept = torch.empty((*shape, trial.graph.d_model), dtype=model.dtype, device=model.device)
        own = Written(kept)
        told = self._telling(own)
        if isinstance(self.by, EAP):
            total.add(self._graph(self._readers, self.encoded, told).back(), self._readers)
            return own, total
        ways = self.by.ways(trial.graph.n_layers)
        ours = self._graph(ways, self.encoded, told, records=False).found.kept
        donors = self._graph(ways, [*map(donor_of, self.encoded)], records=False).found.kept
        for visit in self.by.visits(ways, ours, donors):
            total.add(self._graph(self._readers, self.encoded, [visit]).back(), self._readers)
        return own, total

    def _telling(self, into: Written) -> list[Visit]:
        """The visits that see what is written."""

        def take(first: int, view: Tensor) -> None:
            into.shares[:, first : first + view.shape[2]] = view.detach().transpose(1, 2)

        def mix(layer: int, view: Tensor) -> None:
            into.mixed[layer] = view.detach().clone()

        told = [*writing(self.trial.graph, take)]
        if self.trial.model.anatomy.family.attn_norm is not None:
            told += mixing(self.trial.model, mix)
        return told

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


@dataclass(frozen=True, eq=False)
class OnePass:
    """All edges of a trial, to first order, in one pass of each prompt (of EAP-IG in some).

    Attributes:
        trial: what is asked.
        by: the approximation.
        tick: is told of cells.
    """

    trial: Trial
    by: EAP | EAPIG
    tick: Tick

    @property
    def units(self) -> list[tuple[int, ...]]:
        """The prompts, by number, some of one length in each unit."""
        ways = 1
        if isinstance(self.by, EAPIG):
            ways = self.by.steps * len(self.by.ways(self.trial.graph.n_layers))
        return [
            tuple(some)
            for length, alike in self.trial.by_length(range(len(self.trial.encoded)))
            for some in _pieces(alike, max(1, TOKENS // (ways * length)))
        ]

    def effects(self, prompts: Sequence[int]) -> Array:
        """The effect of ablating each edge on some prompts of one length, ``[row, edge]``."""
        trial, (writers, readers) = self._wide, self.trial.graph.ends
        length = len(trial.encoded[prompts[0]].tokens.read)
        each = []
        with session(trial.model.hf, trial.model.anatomy):
            for some in _pieces(prompts, _at_once(trial, length)):
                own = Slopes(trial, self.by, some).effects()
                each.append(own.double().cpu().numpy()[:, writers, readers])
                self.tick(each[-1].size)
        return np.concatenate(each)

    @cached_property
    def _wide(self) -> Trial:
        """The same, with a model that rounds finely enough."""
        model, budget = self.trial.model, self.trial.budget
        return replace(self.trial, model=widened(model), budget=widened_for(model, budget), kept={})


def _pieces(prompts: Sequence[int], most: int) -> Iterator[Sequence[int]]:
    return (prompts[first : first + most] for first in range(0, len(prompts), most))


def _at_once(trial: Trial, length: int) -> int:
    """How many prompts of so many tokens are taken together."""
    dims, size = trial.model.anatomy.dims, trial.model.itemsize
    shares = KEPT * len(trial.graph.writers) * length * dims.d_model * size
    felt = 3 * len(trial.graph.readers) * length * dims.d_model * size
    made = dims.n_layers * (bytes_of_block(dims, length, size) + dims.n_heads * length**2 * size)
    return max(1, min(trial.rows_at_once(length), trial.budget.memory // (shares + felt + made)))
