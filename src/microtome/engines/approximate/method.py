"""What an approximation is: a small frozen object that makes effects of gradients.

Each is of first order: what an edit changes at a site, times the gradient of the metric there,
summed up. They differ in where the gradient is taken, what it goes through, and what is made of
several. An effect has the sign and the unit of an exact one: edited − clean.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from microtome.edits.application import Application
from microtome.edits.base import literal
from microtome.engines.approximate.stretch import Stretch
from microtome.errors import MetricError
from microtome.language.regions import Column
from microtome.passes.hooks import Place
from microtome.plan.approximation import Passes
from microtome.plan.legs import is_split
from microtome.plan.question import Question


@dataclass(frozen=True, eq=False)
class Change:
    """What an edit of some cells of one prompt changes.

    Attributes:
        stretch: the prompts that theirs is of.
        application: the edit.
        cells: the numbers of the cells.
        where: where it lands in the site's values.
        values: what it changes there, in float64.
    """

    stretch: Stretch
    application: Application
    cells: Column
    where: tuple[Tensor, ...]
    values: Float[Tensor, " cell *region"]

    @property
    def place(self) -> Place:
        """The site and its layer."""
        return self.application.regions.site, self.application.regions.layer


@runtime_checkable
class Take(Protocol):
    """The gradients of one way back, at the regions of edits."""

    def at(self, number: int, change: Change) -> Float[Tensor, " cell *region"]:
        """The gradient of a reading, by its number, where an edit of some cells lands."""


@dataclass(frozen=True)
class Method(ABC):
    """A way to approximate effects.

    Subclasses add their parameters as fields. The text form, ``name(parameters)``, parses to an
    equal one (`engines.approximate.text`).
    """

    name: ClassVar[str]
    about: ClassVar[str]
    """What it computes, in words that go on after its name."""

    def check(self, question: Question) -> None:  # noqa: B027  (mostly there is nothing to refuse)
        """Raise where it says nothing of what is asked.

        Raises:
            SweepError: so it is.
        """

    @abstractmethod
    def passes(self, question: Question) -> Passes:
        """How often a prompt goes through the model."""

    @abstractmethod
    def takes(self, stretch: Stretch) -> Iterator[Take]:
        """The gradients that it is made of, one way back after another."""

    def effect(self, take: Take, number: int, change: Change) -> Float[Tensor, " cell"]:
        """What one edit of some cells does to a reading, by one of the takes: to first order.

        Args:
            take: the gradients.
            number: of the reading.
            change: what the edit changes.
        """
        slope = take.at(number, change).double()
        return (change.values * slope).flatten(1).sum(-1)

    def together(self, each: Sequence[Float[Tensor, " cell"]]) -> Float[Tensor, " cell"]:
        """One effect of those by every take."""
        [only] = each
        return only

    def __str__(self) -> str:
        shown = [
            f"{f.name}={literal(value)}"
            for f in fields(self)
            if (value := getattr(self, f.name)) != f.default
        ]
        return f"{self.name}({', '.join(shown)})" if shown else self.name


def refuse_split(method: Method, question: Question) -> None:
    """Raise where an answer is of several tokens, whose sizes do not add up to that of them all.

    Raises:
        MetricError: so it is.
    """
    for reading in question.readings:
        if is_split(question, reading):
            raise MetricError(
                f"method={str(method)!r} gives the size of an effect, and {reading} is of several "
                "tokens, which are read one by one: sizes do not add up. Take method='atp', or "
                "measure a single token."
            )


def refuse_products(method: Method, question: Question) -> None:
    """Raise where a probability is a product of several: it changes by itself times the sum of what
    their logarithms change by only where gradients are those of the prompt's own run.

    Raises:
        MetricError: so it is.
    """
    for reading in question.readings:
        if reading.metric.name == "prob" and is_split(question, reading):
            raise MetricError(
                f"method={str(method)!r} takes gradients elsewhere than in the prompt's own run, "
                f"and {reading} is of several tokens, a product: what it changes by there is not "
                "known. Measure logprob, or take method='atp'."
            )
