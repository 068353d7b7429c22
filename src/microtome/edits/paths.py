"""Paths: what comes of an edited writer at a reader, by every route through some parts.

A pass of its own, in which the writer's share is edited, the parts that a path may go through are
free, and all others hold what they had in the clean run. What the reader reads there, less what it
reads in the clean run, is the change that a cell makes: in its own pass all else is clean.

These are whole passes, for one cell: the reference path's, and what verification holds the walk's
against, which has its own way there (`engines.walk.fronts`).

Source: path patching, Goldowsky-Dill et al. 2023 (arXiv:2304.05969); Wang et al. 2022
(arXiv:2211.00593), section 3.1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.edges import Edge
from microtome.language.order import held
from microtome.language.regions import Region, Regions
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.passes.calling import call_body
from microtome.passes.hooks import Place, Visit, quiet, visited
from microtome.passes.session import session
from microtome.passes.trace import Piece, ids_of, index, record
from microtome.prompts.tokens import Tokens

ADDED = {"head_out": "attn_out"}
"""Where a share's change is put, if not at its own site: behind the norm of what heads add."""


@dataclass(frozen=True, eq=False)
class Path:
    """A path in a prompt, without stars.

    Attributes:
        hf: the model.
        anatomy: its anatomy.
        edge: the path.
        tokens: the prompt's.
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    edge: Edge
    tokens: Tokens

    def change(
        self, share: Region, changed: Float[Tensor, "1 pos d_model"], lands: Region
    ) -> Float[Tensor, " 1 *region"]:
        """What changes of what the reader reads.

        Args:
            share: where the writer adds.
            changed: what is changed of that.
            lands: where the reader reads.
        """
        still = held(self.edge, share.layer, lands.layer, self.anatomy.dims)
        places = [*still, (lands.site, lands.layer)]
        last = len(self.tokens.read) - 1
        pieces = [Piece(place, 0, last) for place in places]
        clean = record(self.hf, self.anatomy, [self.tokens], pieces)
        seen: list[Tensor] = []
        where = index(Regions.of(lands), changed.device)
        visits = [
            self._written(share, changed),
            *(self._held(place, clean) for place in still),
            Visit(places[-1], lambda view: seen.append(view[where])),
        ]
        self._pass(visits)
        return seen[0] - clean[places[-1]][where]

    def _pass(self, visits: Sequence[Visit]) -> None:
        with session(self.hf, self.anatomy), quiet(self.hf), visited(self.hf, self.anatomy, visits):
            call_body(self.hf, ids_of([self.tokens], self.hf), use_cache=False)

    def _written(self, share: Region, changed: Float[Tensor, "1 pos d_model"]) -> Visit:
        site = find_site(ADDED.get(share.site.name, share.site.name))
        positions = list(share.indices[0])

        def act(view: Float[Tensor, "1 pos d_model"]) -> None:
            view[:, positions] += changed

        return Visit((site, share.layer), act, writes=True)

    @staticmethod
    def _held(place: Place, clean: Mapping[Place, Tensor]) -> Visit:
        def act(view: Tensor) -> None:
            view.copy_(clean[place])

        return Visit(place, act, writes=True)
