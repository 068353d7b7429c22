"""Integrated gradients of sites, and the sizes of gradients alone."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import whole
from microtome.engines.approximate.atp import AtP, OwnRun
from microtome.engines.approximate.method import Change, Method, Take, refuse_products, refuse_split
from microtome.engines.approximate.stretch import Stretch, putting
from microtome.errors import SweepError
from microtome.language.operations import Operation
from microtome.language.sites import APART
from microtome.passes.hooks import Place, Visit
from microtome.plan.approximation import Passes
from microtome.plan.question import Question
from microtome.spoken import spoken

Way = tuple[Operation, int | None]
"""An edit with its parameters, in a layer: what moves along a path together."""


@spoken
@dataclass(frozen=True)
class IG(Method):
    """Integrated gradients: the edit's change times the gradient along the way to what it makes.

    All cells of one layer go together on a straight way from the prompt's own values to the edited
    ones, in steps at whose middles gradients are taken. So the effects of a layer's cells add up to
    what editing all of them at once does, the more exactly the more steps there are.

    Args:
        steps: how many.

    Source: Sundararajan et al. 2017 (arXiv:1703.01365); of hidden units, Dhamdhere et al. 2018
    (arXiv:1805.12233).

    >>> str(IG()), str(IG(32))
    ('ig', 'ig(steps=32)')
    """

    name: ClassVar[str] = "ig"
    about: ClassVar[str] = (
        "what an edit changes times the mean gradient on the way there, all cells of a layer "
        "together"
    )

    steps: int = 16

    def __post_init__(self) -> None:
        if whole(self.steps, "IG(steps=…)") < 1:
            raise SweepError(f"IG(steps={self.steps}): there has to be one step at least.")

    def check(self, question: Question) -> None:
        """What `AtP` refuses; what single heads read, of which no pass has all at once; and edits
        whose ends cannot all be reached together."""
        AtP().check(question)
        refuse_products(self, question)
        for edit in question.edits:
            if edit.address.site.name in (*APART, "mlp_in"):
                raise SweepError(
                    f"method={str(self)!r} moves all cells of a layer together, and '{edit}' is of "
                    "what single parts read or write: take q, k, v, z or mlp_post, or AtP()."
                )
            if edit.widens is not None:
                raise SweepError(
                    f"method={str(self)!r} moves all cells of a layer together, and each cell of "
                    f"'{edit}' changes what others are about: take AtP()."
                )

    def passes(self, question: Question) -> Passes:
        """Forward for each step of each layer and edit, and back for each metric."""
        edits = sum(map(len, question.variants))
        times = self.steps * edits * question.dims.n_layers
        return Passes(1 + times, times * len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The means along all ways."""
        ends = _ends(stretch)
        found = OnTheWay()
        for way, end in ends.items():
            found.means[way] = self._mean(stretch, (way[0].address.site, way[1]), end)
        yield found

    def _mean(self, stretch: Stretch, place: Place, end: Tensor) -> list[Tensor]:
        """The mean gradient of each reading on one way."""
        start = stretch.run.kept[place]
        total: list[Tensor] = []
        for step in range(self.steps):
            there = start + (step + 0.5) / self.steps * (end - start)
            visit = Visit(place, putting(there), writes=True)
            slopes = stretch.slopes(places=[place], before=[visit])
            own = [slopes.at(n, place) / self.steps for n in range(len(slopes.ends))]
            total = [a + b for a, b in zip(total, own, strict=True)] if total else own
        return total


@dataclass(frozen=True, eq=False)
class OnTheWay:
    """Mean gradients, of all that moves together.

    Attributes:
        means: per way, and per reading, ``[row, *axes]``.
    """

    means: dict[Way, list[Tensor]] = field(default_factory=dict)

    def at(self, number: int, change: Change) -> Tensor:
        """As `Take.at`."""
        return self.means[change.application.edit, change.place[1]][number][change.where]


def _ends(stretch: Stretch) -> dict[Way, Tensor]:
    """What a site is where all cells of an edit are edited, in each layer."""
    found: dict[Way, Tensor] = {}
    for prompt in stretch.prompts:
        for _, application in stretch.applications(prompt):
            way = application.edit, application.regions.layer
            own = stretch.run.kept[application.regions.site, application.regions.layer]
            end = found.setdefault(way, own.clone(memory_format=torch.contiguous_format))
            where, _, after = application.made(own)
            end[where] = after
    return found


@spoken
@dataclass(frozen=True)
class GradientNorms(Method):
    """The size of an edit's change times the size of the gradient there.

    No effect of first order of a change of that size is larger: the direction is left out, and so
    is the sign.

    >>> str(GradientNorms())
    'gradient_norms'
    """

    name: ClassVar[str] = "gradient_norms"
    about: ClassVar[str] = "the norm of what an edit changes times the norm of the gradient there"

    def check(self, question: Question) -> None:
        """What `AtP` refuses; and answers that are read token by token."""
        AtP().check(question)
        refuse_split(self, question)

    def passes(self, question: Question) -> Passes:
        """Forward once, and back for each metric."""
        return Passes(1, len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The one of the clean run."""
        yield OwnRun(stretch.own)

    def effect(self, take: Take, number: int, change: Change) -> Float[Tensor, " cell"]:
        """The product of the norms."""
        slope = take.at(number, change).double()
        product: Tensor = change.values.flatten(1).norm(dim=1) * slope.flatten(1).norm(dim=1)
        return product
