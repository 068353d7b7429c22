"""Edge attribution patching."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from torch import Tensor

from microtome.amounts import many
from microtome.edits.base import one_of, whole
from microtome.engines.approximate.atp import OwnRun, donor_of
from microtome.engines.approximate.method import Change, Method, Take, refuse_products
from microtome.engines.approximate.stretch import Stretch, putting
from microtome.errors import SweepError
from microtome.language.edges import Edge
from microtome.language.sites import site as find_site
from microtome.passes.backward import Slopes
from microtome.passes.hooks import Place, Visit
from microtome.plan.approximation import Passes
from microtome.plan.question import Question
from microtome.spoken import spoken


@spoken
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


@spoken
@dataclass(frozen=True)
class EAPIG(Method):
    """`EAP` with the gradient averaged on the way from the donor's run to the prompt's own.

    Something goes from the donor's to the prompt's own in equal steps; gradients are taken at the
    end of each step, the last of them in the prompt's own run, as published.

    Args:
        steps: how many.
        over: ``"inputs"``, what enters the first block goes. So the edges out of the input add up
            to m(donor) − m(clean), the more exactly the more steps there are. ``"activations"``,
            the input, the heads of each layer together, and each MLP go in turn, while all else is
            the prompt's own, and the gradient is the mean over all of these: a way for each layer,
            so 2 · layers + 1 times as many passes.

    Source: Hanna et al. 2024 (arXiv:2403.17806), equation 4 (EAP-IG, inputs); over activations as
    their code has it, ``EAP-IG-activations``.

    >>> str(EAPIG()), str(EAPIG(20)), str(EAPIG(over="activations"))
    ('eap_ig', 'eap_ig(steps=20)', 'eap_ig(over="activations")')
    """

    name: ClassVar[str] = "eap_ig"
    about: ClassVar[str] = (
        "what an edit changes of a writer's share times the mean gradient at the reader's input, "
        "on the way from the donor's run to the prompt's own"
    )

    steps: int = 5
    over: str = "inputs"

    def __post_init__(self) -> None:
        if whole(self.steps, "EAPIG(steps=…)") < 1:
            raise SweepError(f"EAPIG(steps={self.steps}): there has to be one step at least.")
        one_of(self.over, ("inputs", "activations"), "EAPIG(over=…)")

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
                    f"{one.prompt.shown} they are {len(one.donor)} and "
                    f"{many(len(one.tokens), 'token')} "
                    "long: give a donor of the same length, or use EAP()."
                )

    def passes(self, question: Question) -> Passes:
        """Forward for each step, and back for each metric; and the donors'."""
        times = self.steps * len(self.ways(question.dims.n_layers))
        return Passes(2 + times, times * len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The mean over all steps."""
        ways = self.ways(stretch.plan.question.dims.n_layers)
        run = stretch.graph(places=[*ways, *stretch.places], records=False).found
        stretch.knows(run)
        others = [donor_of(one) for one in stretch.encoded]
        donors = stretch.graph(others, ways, records=False).found.kept
        total = MeanRun()
        for visit in self.visits(ways, run.kept, donors):
            total.add(stretch.slopes(before=[visit]), stretch.places)
        yield total

    def visits(
        self, ways: Sequence[Place], own: Mapping[Place, Tensor], donors: Mapping[Place, Tensor]
    ) -> Iterator[Visit]:
        """What is put into each run whose gradients are averaged.

        Args:
            ways: what goes from the donor's to the prompt's own, one after another.
            own, donors: what they are in either run.
        """
        for way, step in itertools.product(ways, range(1, self.steps + 1)):
            there = donors[way] + step / self.steps * (own[way] - donors[way])
            yield Visit(way, putting(there), writes=True)

    def ways(self, layers: int) -> list[Place]:
        """What goes from the donor's to the prompt's own, one after another."""
        found: list[Place] = [(find_site("embed"), None)]
        if self.over == "inputs":
            return found
        parts = itertools.product(range(layers), ("z", "mlp_out"))
        return found + [(find_site(site), layer) for layer, site in parts]


@dataclass(eq=False)
class MeanRun:
    """The mean gradients of several runs: an effect to first order is linear in them.

    Attributes:
        total: per place and reading the sum, ``[row, *axes]``.
        runs: how many.
    """

    total: dict[Place, list[Tensor]] = field(default_factory=dict)
    runs: int = 0

    def add(self, slopes: Slopes, places: Iterable[Place]) -> None:
        """One more run."""
        self.runs += 1
        for place in places:
            own = [slopes.at(number, place) for number in range(len(slopes.ends))]
            old = self.total.get(place)
            self.total[place] = (
                own if old is None else [a + b for a, b in zip(old, own, strict=True)]
            )

    def mean(self, place: Place, number: int = 0) -> Tensor:
        """The mean gradient of a reading at a place, ``[row, *axes]``."""
        return self.total[place][number] / self.runs

    def at(self, number: int, change: Change) -> Tensor:
        """As `Take.at`."""
        return self.mean(change.place, number)[change.where]


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
