"""Attribution patching."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor

from microtome.edits.base import one_of
from microtome.edits.sources import Sources
from microtome.engines.approximate.method import Change, Method, Take, refuse_products
from microtome.engines.approximate.stretch import Stretch
from microtome.errors import SweepError
from microtome.language.edges import Edge
from microtome.language.operations import Source
from microtome.passes.backward import Slopes
from microtome.plan.approximation import Passes
from microtome.plan.question import Question
from microtome.prompts.encoding import Encoded
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class AtP(Method):
    """Attribution patching: the edit's change times the gradient of the metric, to first order.

    Args:
        at: ``"clean"``, the gradient of the prompt's own run, in which the edit is made;
            ``"donor"``, that of the donor's run, for patches.

    Source: Nanda 2023; Kramár et al. 2024 (arXiv:2403.00745), equation 4.

    >>> str(AtP()), str(AtP(at="donor"))
    ('atp', 'atp(at="donor")')
    """

    name: ClassVar[str] = "atp"
    about: ClassVar[str] = "what an edit changes times the gradient of the metric, to first order"

    at: str = "clean"

    def __post_init__(self) -> None:
        one_of(self.at, ("clean", "donor"), "AtP(at=…)")

    def check(self, question: Question) -> None:
        """There has to be a donor for its gradient."""
        if self.at == "donor":
            refuse_products(self, question)
        for edit in question.edits:
            if isinstance(edit.address, Edge):
                raise SweepError(
                    f"method={str(self)!r} is of what an edit changes at a site, and '{edit}' is "
                    "made on an edge: use EAP(), which is the same there."
                )
            if self.at == "donor" and edit.source is not Source.DONOR:
                raise SweepError(
                    f"method={str(self)!r} takes gradients at the donor's run, and '{edit}' takes "
                    "nothing from a donor: use AtP(at='clean')."
                )

    def passes(self, question: Question) -> Passes:
        """Forward once, and back for each metric."""
        return Passes(1 + (self.at == "donor"), len(question.readings))

    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The one of the clean run or of the donor's."""
        yield OwnRun(stretch.own) if self.at == "clean" else DonorsRun.of(stretch)


@dataclass(frozen=True, eq=False)
class OwnRun:
    """Gradients at the very values that edits change."""

    slopes: Slopes

    def at(self, number: int, change: Change) -> Tensor:
        """As `Take.at`."""
        return self.slopes.at(number, change.place)[change.where]


@dataclass(eq=False)
class DonorsRun:
    """Gradients at a donor's values, at the places where edits take theirs from.

    Attributes:
        stretch: the prompts.
        runs: of each, the gradients of its donor's run, and which row of them is the donor's.
        prompt: the one whose gradients are at hand.
        sources: these, per reading: they are found as an edit's values are, aligned or not.
    """

    stretch: Stretch
    runs: Mapping[int, tuple[Slopes, int]]
    prompt: int = -1
    sources: list[Sources] = field(default_factory=list)

    @classmethod
    def of(cls, stretch: Stretch) -> DonorsRun:
        """Run the donors, those of one length together."""
        donors = [donor_of(one) for one in stretch.encoded]
        alike: dict[int, list[int]] = defaultdict(list)
        for row, one in enumerate(donors):
            alike[len(one.tokens.read)].append(row)
        runs: dict[int, tuple[Slopes, int]] = {}
        for rows in alike.values():
            found = stretch.slopes([donors[row] for row in rows])
            runs |= {stretch.prompts[row]: (found, own) for own, row in enumerate(rows)}
        return cls(stretch, runs)

    def at(self, number: int, change: Change) -> Tensor:
        """As `Take.at`."""
        plan = self.stretch.plan
        cells = change.cells
        prompt = int(plan.cells.prompt[cells[0]])
        if prompt != self.prompt:
            self.sources = [self._held(prompt, n) for n in range(len(plan.question.readings))]
            self.prompt = prompt
        found = self.sources[number].of(
            change.application.edit,
            change.place[1],
            plan.question.encoded[prompt],
            plan.cells.values(cells),
            len(cells),
            plan.cells.live[prompt],
        )
        assert found is not None, "only edits from a donor are taken"
        return found

    def _held(self, prompt: int, number: int) -> Sources:
        stretch, one = self.stretch, self.stretch.plan.question.encoded[prompt]
        found, row = self.runs[prompt]
        needs = ((edit, one) for edits in stretch.plan.question.variants for edit in edits)
        sources = Sources(stretch.model.hf, stretch.model.anatomy, needs)
        donors = [text for text in sources.texts([one]) if text == one.donor]
        pieces = sources.pieces(donors)
        own = [piece for piece in pieces if piece.place in stretch.places]
        kept = {
            piece.place: piece.of(found.at(number, piece.place)[row : row + 1]) for piece in own
        }
        sources.hold_recorded(donors, kept)
        return sources


def donor_of(one: Encoded) -> Encoded:
    """A prompt's donor in the place of its text, with what is said behind it."""
    assert one.donor is not None, "an edit that takes from a donor has one"
    return replace(one, tokens=replace(one.donor, forced=one.tokens.forced))
