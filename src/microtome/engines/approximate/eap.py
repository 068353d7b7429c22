"""Edge attribution patching."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from microtome.engines.approximate.atp import OwnRun
from microtome.engines.approximate.method import Method, Take
from microtome.engines.approximate.stretch import Stretch
from microtome.errors import SweepError
from microtome.language.edges import Edge
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
