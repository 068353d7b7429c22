"""Edge attribution patching."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import whole
from microtome.engines.approximate.atp import OwnRun, donor_of
from microtome.engines.approximate.method import Method, Take, refuse_products
from microtome.engines.approximate.stretch import Stretch, putting
from microtome.errors import SweepError
from microtome.language.edges import Edge
from microtome.language.sites import site as find_site
from microtome.passes.hooks import Visit
from microtome.plan.approximation import Passes
from microtome.plan.question import Question


@dataclass(frozen=True)
class EAP(Method):
    """Edge attribution patching: the writer's change times the gradient at what the reader reads.

    What the edit changes of the writer's share, times the gradient of the metric at the reader's
    input, before its norm, in the prompt's own run. The edges of a writer add up to `AtP` of what
    it writes.

    Source: Syed et al. 2023 (arXiv:2310.10348), equation 2.

    >>> str(EAP())
    'eap'
    """

    name: ClassVar[str] = "eap"
    about: ClassVar[str] = (
        "what an edit changes of a writer's share times the gradient at the reader's input, to "
        "first order"
    )

    def check(self, question: Question) -> None:
        """Every edit has to be of an edge."""
        refuse_all_but_edges(self, question)

    def passes(self, question: Question) -> Passes:
        """Forward once, and back for each metric."""
        return Passes(1, len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The one of the clean run."""
        yield OwnRun(stretch.own)


@dataclass(frozen=True)
class EAPIG(Method):
    """`EAP` with the gradient averaged on the way from the donor's input to the prompt's own.

    What enters the first block goes from the donor's to the prompt's own in equal steps; gradients
    are taken at the end of each step, the last of them in the prompt's own run, as published. So
    the edges out of the input add up to m(donor) − m(clean), the more exactly the more steps there
    are.

    Args:
        steps: how many.

    Source: Hanna et al. 2024 (arXiv:2403.17806), equation 4 (EAP-IG, inputs).

    >>> str(EAPIG()), str(EAPIG(20))
    ('eap_ig', 'eap_ig(steps=20)')
    """

    name: ClassVar[str] = "eap_ig"
    about: ClassVar[str] = (
        "what an edit changes of a writer's share times the mean gradient at the reader's input, "
        "on the way from the donor's input to the prompt's own"
    )

    steps: int = 5

    def __post_init__(self) -> None:
        if whole(self.steps, "EAPIG(steps=…)") < 1:
            raise SweepError(f"EAPIG(steps={self.steps}): there has to be one step at least.")

    def check(self, question: Question) -> None:
        """Every edit has to be of an edge, and every prompt has to have a donor of its length."""
        refuse_all_but_edges(self, question)
        refuse_products(self, question)
        for one in question.encoded:
            if one.donor is None:
                raise SweepError(
                    f"method={str(self)!r} goes from the donor's input to the prompt's own, and "
                    f'{one.prompt.shown} has no donor: give Prompt(…, donor="…"), or use EAP().'
                )
            if len(one.donor) != len(one.tokens):
                raise SweepError(
                    f"method={str(self)!r} goes from the donor's input to the prompt's own, and of "
                    f"{one.prompt.shown} they are {len(one.donor)} and {len(one.tokens)} tokens "
                    "long: give a donor of the same length, or use EAP()."
                )

    def passes(self, question: Question) -> Passes:
        """Forward for each step, and back for each metric; and the donors'."""
        return Passes(2 + self.steps, self.steps * len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """One for each step."""
        place = find_site("embed"), None
        run = stretch.graph(places=[place, *stretch.places], records=False).found
        stretch.knows(run)
        others = [donor_of(one) for one in stretch.encoded]
        own = run.kept[place]
        donors = stretch.graph(others, [place], records=False).found.kept[place]
        for step in range(1, self.steps + 1):
            there = donors + step / self.steps * (own - donors)
            visit = Visit(place, putting(there), writes=True)
            yield OwnRun(stretch.slopes(before=[visit]))

    def together(self, each: Sequence[Float[Tensor, " cell"]]) -> Float[Tensor, " cell"]:
        """The mean over the steps."""
        return torch.stack([*each]).mean(0)


def refuse_all_but_edges(method: Method, question: Question) -> None:
    """Raise unless every edit is of an edge.

    Raises:
        SweepError: one is of a site, or of a path.
    """
    for edit in question.edits:
        if not isinstance(edit.address, Edge):
            raise SweepError(
                f"method={str(method)!r} is of edges, and '{edit}' is made at a site: address "
                "WRITER -> READER, such as 'patch L*.z.h* -> L*.q_in.h*'; or use AtP()."
            )
        if edit.address.is_path:
            raise SweepError(
                f"method={str(method)!r} is of single edges, and '{edit}' is made on a path "
                "through other parts: write '->', or take method='exact'."
            )
