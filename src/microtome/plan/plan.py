"""The plan of a sweep: its axes and cells, which engine takes them, and what they cost.

Pure: no tensor is touched. A star of the addresses is an axis, and edits that star the same thing
move along it together; so is a parameter given in ``over=``. A cell is one point of the product:
edits without stars, for one prompt. Cells that do not exist (a position beyond a shorter prompt)
are absent; so are those at a position that has no counterpart in an aligned donor.

A map has up to hundreds of thousands of cells, so they are kept as columns (`Cells`), and a `Cell`
is made when it is asked for. A plan is the seam between the question and the engines: an engine
computes its cells in any order that it likes. `sweep.reference` takes them one by one,
`sweep.engine` walks them together.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, overload

import numpy as np

from microtome.edits import Edit
from microtome.edits.sources import others_of
from microtome.edits.values import Values
from microtome.errors import EditError, SweepError, did_you_mean, listing
from microtome.language.regions import Column, Layout, Region
from microtome.language.sites import Dimensions
from microtome.plan.cost import Budget, Cost, cost_of
from microtome.prompts.alignment import ABSENT, SAME
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import aligned_stars, counterpart, layout, spans
from microtome.readings.inside import Gauge

ENGINES = ("auto", "walk", "reference")

WALK = "one pass through the layers for all cells of a prompt"
WHOLE = (
    "in an encoder every position sees the edited one, so no position before it stays as it was, "
    "and a cell takes all positions with it from the first layer that it edits"
)
"""What the walk does where it cannot reuse the keys and values before an edit, and why."""


@dataclass(frozen=True)
class Axis:
    """A dimension of the map and its coordinates."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One point of the map.

    Attributes:
        index: where it stands along each axis; the first is the prompt.
        edits: its edits, without stars.
        places: per edit, the regions where it lands.
    """

    index: tuple[int, ...]
    edits: tuple[Edit, ...]
    places: tuple[tuple[Region, ...], ...]

    @property
    def prompt(self) -> int:
        """Index of its prompt."""
        return self.index[0]


@dataclass(frozen=True, eq=False)
class Cells(Sequence[Cell]):
    """Cells as columns.

    Attributes:
        edits: per variant (a combination of the parameters in ``over=``), the edits with stars.
        layouts: per prompt and edit, where its address lands.
        stars: the names of the stars, which are the axes after the first.
        points: where each cell stands along each axis, ``[cell, axis]``.
        variant: which variant each cell is of, ``[cell]``.
        causal: no position sees a later one.
    """

    edits: tuple[tuple[Edit, ...], ...]
    layouts: tuple[tuple[Layout, ...], ...]
    stars: tuple[str, ...]
    points: Column
    variant: Column
    causal: bool = True

    def __len__(self) -> int:
        return len(self.points)

    @overload
    def __getitem__(self, number: int) -> Cell: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Cell]: ...
    def __getitem__(self, number: int | slice) -> Cell | Sequence[Cell]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        index = tuple(self.points[number].tolist())
        stars = dict(zip(self.stars, index[1:], strict=False))
        edits = tuple(edit.at(**stars) for edit in self.edits[self.variant[number]])
        places = tuple(layout.regions(**stars) for layout in self.layouts[index[0]])
        return Cell(index, edits, places)

    @property
    def prompt(self) -> Column:
        """The prompt of each cell, ``[cell]``."""
        return self.points[:, 0]

    def values(self, chosen: Column | slice = slice(None)) -> dict[str, Column]:
        """What each star is in some cells, by its name."""
        return {name: self.points[chosen, 1 + n] for n, name in enumerate(self.stars)}

    @cached_property
    def entry(self) -> Column:
        """The first block that each cell has to run, ``[cell]``; one past the last: none."""
        return self._first("entry")

    @cached_property
    def position(self) -> Column:
        """The first position that is not the clean run's, ``[cell]``: the first one edited.

        In an encoder it is 0, as every position sees the edited one.
        """
        return self._first("position") if self.causal else np.zeros(len(self), dtype=np.int64)

    def _first(self, what: str) -> Column:
        found = np.empty(len(self), dtype=np.int64)
        for prompt, layouts in enumerate(self.layouts):
            own = np.flatnonzero(self.prompt == prompt)
            stars = self.values(own)
            found[own] = np.min([getattr(one, what)(stars, len(own)) for one in layouts], axis=0)
        return found


@dataclass(frozen=True)
class Choice:
    """The engine that takes a sweep's cells, and the reason in words."""

    engine: str
    why: str


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in order, prompt by prompt; who takes them, and at what cost.

    ``absent`` counts the cells that do not exist, and ``why_absent`` says for what reasons some do
    not.
    """

    axes: tuple[Axis, ...]
    cells: Cells
    choice: Choice
    cost: Cost
    absent: int = 0
    why_absent: str = ""

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of the map along each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def of_prompt(self, prompt: int) -> list[Cell]:
        """The cells of one prompt."""
        return [self.cells[n] for n in np.flatnonzero(self.cells.prompt == prompt).tolist()]


def make_plan(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Sequence[Encoded] = (),
    engine: str = "auto",
    budget: Budget = Budget(),  # noqa: B008  (frozen)
    gauges: Sequence[Gauge] = (),
) -> Plan:
    """The plan of a sweep.

    Args:
        dims: the model's.
        encoded: the prompts.
        edits: together they make one cell; at least one.
        over: values for parameters of the edits, each an axis of its own name.
        reference: the prompts that a mean over prompts averages over.
        engine: ``"walk"``, ``"reference"``, or ``"auto"``: the walk wherever it can go.
        budget: what the walk may use of the machine.
        gauges: the metrics inside the model, which take memory.

    Raises:
        SweepError: there is no edit, ``over`` names what no edit has, or the walk is asked for
            where it cannot go, or the budget is too small for it.
        AddressError, EditError, PromptError: an edit does not fit the model or a prompt.
    """
    if not edits:
        raise SweepError("A sweep needs an edit, such as zero('L*.z.h*').")
    choice = choose(engine, edits, dims.causal)
    varied = _varied(edits, over or {})
    for one in encoded:
        for chosen in _variants(edits, varied):
            _check(chosen, dims, one, reference)
    ranges = [_ranges(edits, dims, one) for one in encoded]
    stars = [Axis(name, tuple(range(max(len(r[name]) for r in ranges)))) for name in ranges[0]]
    axes = (Axis("prompt", tuple(range(len(encoded)))), *stars, *varied)
    cells = _cells(dims, encoded, reference, edits, ranges, varied)
    if not len(cells):
        raise SweepError(
            f"No cell of {listing(edits)} exists: no token attends to a later one, and a position "
            "without a counterpart in the donor cannot be patched. 'microtome plan' shows what is "
            "aligned with what, token by token."
        )
    walks = choice.engine == "walk"
    cost = cost_of(dims, encoded, reference, cells, walks, budget, gauges)
    every = sum(math.prod(map(len, own.values())) for own in ranges) * len(cells.edits)
    absent = every - len(cells)
    return Plan(axes, cells, choice, cost, absent, _why_absent(edits, dims) if absent else "")


def _why_absent(edits: Sequence[Edit], dims: Dimensions) -> str:
    """Why some of the points that the stars of these edits span are no cells."""
    weights = [edit for edit in edits if "k_pos" in edit.address.site.axes]
    reasons = {
        "no token attends to a later one": dims.causal and bool(weights),
        "a knockout has to leave each token a key": any(edit.widens for edit in weights),
        "a position has no counterpart in the donor": any(e.alignment != SAME for e in edits),
    }
    return "; or ".join(reason for reason, holds in reasons.items() if holds)


def choose(engine: str, edits: Sequence[Edit], causal: bool = True) -> Choice:
    """The engine for these edits, in a decoder or in an encoder.

    Raises:
        SweepError: the engine does not exist, or it is the walk and cannot take them.
    """
    if engine not in ENGINES:
        hint = did_you_mean(engine, ENGINES)
        raise SweepError(f"engine={engine!r} does not exist; there are: {listing(ENGINES)}.{hint}")
    if engine == "reference":
        return Choice("reference", "as asked: one full forward pass per cell")
    for edit in edits:
        why = unwalkable(edit)
        if why is not None and engine == "walk":
            raise SweepError(f"The walk cannot take '{edit}': {why}. Use engine='reference'.")
        if why is not None:
            return Choice("reference", f"one full forward pass per cell, since {why}")
    return Choice("walk", WALK if causal else f"{WALK}; {WHOLE}")


def unwalkable(edit: Edit) -> str | None:
    """Why an edit has to go to the reference path; None where it can walk."""
    if edit.address.site.name == "logits":
        return "it edits the output itself, after the last layer"
    if not edit.rowwise:
        return "it is a function of the user's own, which might look across cells"
    return None


def _cells(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    reference: Sequence[Encoded],
    edits: Sequence[Edit],
    ranges: Sequence[Mapping[str, range]],
    varied: Sequence[Axis],
) -> Cells:
    variants, extra = _variants(edits, varied), [len(axis.values) for axis in varied]
    points = []
    for prompt, (one, own) in enumerate(zip(encoded, ranges, strict=True)):
        shape = [len(span) for span in own.values()] + extra
        inner = np.indices(shape).reshape(len(shape), math.prod(shape)).T
        there = _there(dims, variants, _variant_of(inner, extra), one, reference, inner, list(own))
        points.append(np.insert(inner[there], 0, prompt, axis=1))
    together = np.concatenate(points)
    return Cells(
        edits=tuple(variants),
        layouts=tuple(
            tuple(layout(edit.address, dims, one.tokens) for edit in edits) for one in encoded
        ),
        stars=tuple(ranges[0]),
        points=together,
        variant=_variant_of(together, extra),
        causal=dims.causal,
    )


def _variant_of(points: Column, extra: Sequence[int]) -> Column:
    """The variant of each point: its parameters are the last axes."""
    if not extra:
        return np.zeros(len(points), dtype=np.int64)
    found: Column = np.ravel_multi_index(tuple(points[:, -len(extra) :].T), tuple(extra))
    return found


def _there(
    dims: Dimensions,
    variants: Sequence[Sequence[Edit]],
    variant: Column,
    one: Encoded,
    reference: Sequence[Encoded],
    points: Column,
    stars: Sequence[str],
) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Which points of a prompt exist.

    Their positions have counterparts wherever one is needed, and no token attends to a later one.
    """
    there = np.ones(len(points), dtype=bool)
    values = {name: points[:, n] for n, name in enumerate(stars)}
    for number, edits in enumerate(variants):
        for edit in edits:
            where = layout(edit.address, dims, one.tokens)
            if dims.causal and "k_pos" in where.site.axes:
                there &= where.attended(values, len(points), some_left=edit.widens == "k_pos")
                if not edit.keeps_zeros:
                    _refuse_ahead(edit, where, values, there)
            for other in others_of(edit, one, [r.tokens for r in reference]):
                moved = aligned_stars(edit.address, one.tokens, other, edit.alignment)
                for star, column in moved.items():
                    found = column[points[:, stars.index(star)]] != ABSENT
                    there &= found | (variant != number)
    return there


def _refuse_ahead(edit: Edit, where: Layout, stars: Mapping[str, Column], there: Column) -> None:
    """Raise if a cell that exists takes in, among others, attention to later tokens."""
    for cell in np.flatnonzero(there & where.looks_ahead(stars, len(there)))[:1]:
        for region in where.regions(**{name: int(own[cell]) for name, own in stars.items()}):
            edit.check(region)


def _varied(edits: Sequence[Edit], over: Mapping[str, Sequence[Any]]) -> tuple[Axis, ...]:
    known = [f.name for edit in edits for f in edit.parameters()]
    for name, values in over.items():
        if name not in known:
            have = listing(dict.fromkeys(known)) or "none"
            raise SweepError(
                f"over= names {name!r}, which is no parameter of {listing(edits)}. "
                f"Parameters: {have}.{did_you_mean(name, known)}"
            )
        if isinstance(values, str) or not len(values):
            raise SweepError(f"over={{{name!r}: …}} takes a list of values, at least one.")
        labels = [coordinate(value) for value in values]
        if len(set(labels)) < len(labels):
            raise SweepError(f"over={{{name!r}: …}} holds a value twice: {listing(labels)}.")
    return tuple(Axis(name, tuple(values)) for name, values in over.items())


def coordinate(value: Any) -> str | float | int:
    """How a value of ``over=`` stands on its axis: a number or a word as it is, others as text."""
    own = plain(value)
    return own if isinstance(own, str | int | float) else str(own)


def plain(value: Any) -> Any:
    """A value of ``over=`` as JSON has it: a number, a word, or lists of numbers for an array.

    >>> plain(np.float64(0.5)), plain((1, 2))
    (0.5, [1.0, 2.0])
    """
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | int | float):
        return value
    try:
        return Values.of(value).array.tolist()
    except EditError:
        return str(value)


def _variants(edits: Sequence[Edit], varied: Sequence[Axis]) -> list[tuple[Edit, ...]]:
    """The edits with every combination of the varied parameters."""
    names = [axis.name for axis in varied]
    return [
        tuple(_with(edit, dict(zip(names, values, strict=True))) for edit in edits)
        for values in itertools.product(*(axis.values for axis in varied))
    ]


def _with(edit: Edit, values: Mapping[str, Any]) -> Edit:
    own = {f.name for f in edit.parameters()}
    return replace(edit, **{name: value for name, value in values.items() if name in own})


def _ranges(edits: Sequence[Edit], dims: Dimensions, one: Encoded) -> dict[str, range]:
    ranges: dict[str, range] = {}
    for edit in edits:
        for name, span in spans(edit.address, dims, one.tokens).items():
            if ranges.setdefault(name, span) != span:
                raise SweepError(
                    f"The edits {listing(edits)} star {name!r} together, but it has "
                    f"{len(ranges[name])} values for one and {len(span)} for another."
                )
    return ranges


def _check(
    edits: Iterable[Edit], dims: Dimensions, one: Encoded, reference: Sequence[Encoded]
) -> None:
    """Find everything that is wrong with the edits of a prompt before anything runs."""
    for edit in edits:
        # The last query attends to every key.
        first = {
            name: span[-1] if name == "q_pos" else span[0]
            for name, span in spans(edit.address, dims, one.tokens).items()
        }
        for region in layout(edit.address, dims, one.tokens).regions(**first):
            edit.check(region, dims.causal)
        for other in others_of(edit, one, [r.tokens for r in reference]):
            counterpart(edit.address, dims, one.tokens, other, edit.alignment)
