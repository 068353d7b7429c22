"""How edges are scored and a circuit is searched for, as fields of a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import PlainValidator, model_validator

from microtome.amounts import is_finite, whole_of
from microtome.circuits.methods import method_of
from microtome.circuits.scores import AUDIT
from microtome.errors import glimpse, listing
from microtome.frontends.experiment.fields import Count, Whole
from microtome.frontends.experiment.form import Form, at, text_of

TAKES: Mapping[str, tuple[str, ...]] = {
    "top": ("n", "threshold"),
    "greedy": ("n", "tolerance", "every", "start"),
    "acdc": ("threshold", "start", "order"),
}
"""Search → what it looks at."""


def _number(given: Any) -> float:
    if not isinstance(given, int | float) or not is_finite(given):
        raise ValueError(f"expected a number, not {glimpse(given)}")
    return float(given)


def _method(given: Any) -> str:
    name = text_of(given)
    method_of(name)
    return name


def _order(given: Any) -> str | int:
    return whole_of(given) if isinstance(given, int) else text_of(given)


Number = Annotated[float, PlainValidator(_number)]


class Scoring(Form):
    """How edges or nodes are scored; see `microtome.circuits.score`.

    Attributes:
        level: ``edge`` or ``node``.
        method: ``exact``, ``removal``, or an approximation's text, ``eap``.
        audit: how many cells of an approximation are computed exactly.
        seed: of their draw.
    """

    level: Literal["edge", "node"] = "edge"
    method: Annotated[str, PlainValidator(_method)] = "exact"
    audit: Count = AUDIT
    seed: Whole = 0


class Searching(Form):
    """How a circuit is found; see `microtome.circuits`.

    Attributes:
        by: ``top``, ``greedy`` or ``acdc``.
        n: how many edges are left, or taken.
        threshold: of scores; of ACDC its τ.
        tolerance, every: of greedy.
        start: begin with so many of the strongest scores; with all edges unless given.
        order: of ACDC: ``last``, ``first``, or the seed of a shuffle.
    """

    by: Literal["top", "greedy", "acdc"]
    n: Whole | None = None
    threshold: Number | None = None
    tolerance: Number | None = None
    every: Count = 1
    start: Whole | None = None
    order: Annotated[str | int, PlainValidator(_order)] = "last"

    @model_validator(mode="after")
    def _complete(self) -> Self:
        """What a search does not look at is refused, and so is what it lacks."""
        takes = TAKES[self.by]
        for name in sorted(self.model_fields_set - {"by", *takes}):
            raise at(name, f"{self.by} does not look at it; it takes: {listing(takes)}.")
        if self.by == "top" and (self.n is None) == (self.threshold is None):
            raise at("by", "top takes n or threshold, one of them.")
        if self.by == "acdc" and self.threshold is None:
            raise at("by", "acdc keeps edges that cost at least τ: threshold: 0.05.")
        return self

    @property
    def needs_scores(self) -> bool:
        """Whether it looks at scores at all."""
        return self.by == "top" or self.start is not None
