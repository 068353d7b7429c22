"""The question: what is asked of a model, resolved once. Pure: no tensor is touched.

Text has been parsed by now. Here every address is resolved against the model's dimensions and each
prompt's tokens into a `Target`, and whatever is wrong with it is said before anything runs. A star
of the addresses is an axis, and edits that star the same thing move along it together, unless an
address gives its stars a name of their own; so is a parameter given in ``over=``.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from microtome.amounts import many, single
from microtome.errors import SweepError, did_you_mean, listing
from microtome.language.addresses import Address
from microtome.language.edges import Edge
from microtome.language.operations import Operation, Source
from microtome.language.regions import Column, Layout, window_of
from microtome.language.sites import Dimensions
from microtome.plan.cells import Axis
from microtome.prompts.alignment import SAME
from microtome.prompts.encoding import Encoded
from microtome.prompts.others import others_of
from microtome.prompts.resolve import aligned_stars, counterpart
from microtome.prompts.sides import renamed, sides, spanned
from microtome.prompts.tokens import Tokens
from microtome.prompts.ways import unlike

if TYPE_CHECKING:
    from microtome.readings.inside import Gauge
    from microtome.readings.output import Reading
    from microtome.readings.registry import Asked


@dataclass(frozen=True, eq=False)
class Target:
    """Where an edit lands in one prompt.

    Attributes:
        layout: the places, as a function of its stars.
        spans: what each star ranges over.
        others: per other text that it takes activations from, the counterparts of these places.
        moved: per other text, where each star on a position is there (`ABSENT` where it has no
            counterpart); nothing where texts are not aligned.
        live: the first position at which the edit can make a difference.
        share: of an edge, where its writer adds; `others` and `moved` are of that.
    """

    layout: Layout
    spans: Mapping[str, range]
    others: tuple[Layout, ...]
    moved: tuple[Mapping[str, Column], ...]
    live: int
    share: Layout | None = None

    @property
    def is_moved(self) -> bool:
        """Whether it is at other positions in another text, perhaps."""
        return any(self.moved) or any(other != self.changed for other in self.others)

    @property
    def changed(self) -> Layout:
        """Whose values are changed: these places, or what a writer adds."""
        return self.layout if self.share is None else self.share


@dataclass(frozen=True, eq=False)
class Question:
    """What is asked.

    Attributes:
        dims: the model's.
        encoded: the prompts.
        references: the prompts that ``mean(over="prompts")`` averages over.
        edits: together they make one cell.
        asked: the metrics.
        varied: the parameters of ``over=``, each an axis.
        variants: the edits with every combination of these parameters.
        targets: per prompt, variant and edit, where it lands.
        corruption: per prompt, edits of what enters its first block that all its runs have, the one
            without edits too, but its donor's not; nothing where runs are clean.
        window: how many layers an edit is made in together, around each that a star of it is.
    """

    dims: Dimensions
    encoded: tuple[Encoded, ...]
    references: tuple[Encoded, ...]
    edits: tuple[Operation, ...]
    asked: tuple[Asked, ...]
    varied: tuple[Axis, ...]
    variants: tuple[tuple[Operation, ...], ...]
    targets: tuple[tuple[tuple[Target, ...], ...], ...]
    corruption: tuple[tuple[Operation, ...], ...] = ()
    window: int = 1

    @cached_property
    def ranges(self) -> tuple[Mapping[str, range], ...]:
        """Per prompt, what each star ranges over.

        Raises:
            SweepError: edits star the same thing and mean different ones.
        """
        return tuple(self._ranges(per_variant[0]) for per_variant in self.targets)

    def _ranges(self, targets: Sequence[Target]) -> Mapping[str, range]:
        ranges: dict[str, range] = {}
        for target in targets:
            for name, span in target.spans.items():
                if ranges.setdefault(name, span) != span:
                    raise SweepError(
                        f"The edits {listing(self.edits)} star {name!r} together, but it has "
                        f"{many(len(ranges[name]), 'value')} for one and {len(span)} for another."
                    )
        return ranges

    @property
    def live(self) -> tuple[int, ...]:
        """Per prompt, the first position at which any edit can make a difference."""
        each = (tuple(itertools.chain(*per_variant)) for per_variant in self.targets)
        found = tuple(min(target.live for target in targets) for targets in each)
        return tuple(map(min, found, self._corrupted)) if self.corruption else found

    @property
    def _corrupted(self) -> Iterator[int]:
        """Per prompt, the first position that is corrupted: from there on a donor's run differs."""
        for one, edits in zip(self.encoded, self.corruption, strict=True):
            where = (sides(edit.address, self.dims, one.tokens).lands for edit in edits)
            firsts = (int(place.position({}, 1)[0]) for place in where)
            yield min(firsts, default=len(one.tokens))

    @property
    def gauges(self) -> list[Gauge]:
        """The metrics inside the model."""
        return [cast("Gauge", one) for one in self.asked if one.inside]

    @property
    def readings(self) -> list[Reading]:
        """The metrics on the output."""
        return [cast("Reading", one) for one in self.asked if not one.inside]

    @property
    def lengths(self) -> list[int]:
        """How many tokens the model reads of each prompt."""
        return [len(one.tokens.read) for one in self.encoded]

    @property
    def kinds(self) -> list[tuple[int, ...]]:
        """How long each prompt is, and its target and contrast: those alike go together."""
        return [
            (len(one.tokens), *(len(one.row(field)) for field in ("target", "contrast")))
            for one in self.encoded
        ]


def ask(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    edits: Sequence[Operation],
    asked: Sequence[Asked] = (),
    over: Mapping[str, Sequence[Any]] | None = None,
    references: Sequence[Encoded] = (),
    to_run: bool = True,
    corruption: Sequence[Sequence[Operation]] = (),
    window: int = 1,
) -> Question:
    """A question, with everything that is wrong with it found.

    Args:
        dims: the model's.
        encoded: the prompts.
        edits: together they make one cell; at least one.
        asked: the metrics.
        over: values for parameters of the edits, each an axis of its own name.
        references: the prompts that a mean over prompts averages over.
        to_run: prompts have what the metrics read; a plan alone needs no target.
        corruption: per prompt, edits of `embed` that all its runs have; nothing for clean runs.
        window: how many layers an edit is made in together, around each that its star is: as many
            before as behind, of an even number one more before, and fewer at the ends.

    Raises:
        SweepError: there is no edit, or ``over`` names what no edit has; or runs cannot be
            corrupted so.
        AddressError, EditError, PromptError, MetricError: an edit or a metric does not fit the
            model or a prompt.
    """
    if not edits:
        raise SweepError("A sweep needs an edit, such as zero('L*.z.h*').")
    for one in encoded:
        for reading in asked if to_run else ():
            reading.check(one, dims)
    varied = _varied(edits, over or {})
    variants = tuple(_variants(edits, varied))
    texts = [one.tokens for one in references]
    kinds = [[_kinds(edit, texts) for edit in variant] for variant in variants]
    targets = tuple(
        tuple(
            tuple(
                _target(edit, dims, one, texts, own, window)
                for edit, own in zip(variant, each, strict=True)
            )
            for variant, each in zip(variants, kinds, strict=True)
        )
        for one in encoded
    )
    corrupted = tuple(map(tuple, corruption))
    _check_corruption(corrupted, edits)
    rest = (tuple(edits), tuple(asked), varied, variants, targets, corrupted, window)
    return Question(dims, tuple(encoded), tuple(references), *rest)


def _check_corruption(
    corruption: Sequence[Sequence[Operation]], edits: Sequence[Operation]
) -> None:
    """Raise where a walk could not begin with the corrupted stream alone."""
    for edit in itertools.chain(*corruption):
        plain = not isinstance(edit.address, Edge) and edit.source is Source.NOTHING
        if not plain or edit.place.site.name != "embed":
            raise SweepError(f"'{edit}' corrupts no run: give an edit of embed, such as noise.")
    if corruption and any(isinstance(edit.address, Edge) for edit in edits):
        raise SweepError(
            f"{listing(edits)}: what an edge changes is known of clean runs, not of corrupted ones."
        )


def _kinds(edit: Operation, texts: Sequence[Tokens]) -> list[Tokens]:
    """The references that an edit has to be held against: one of each kind."""
    if edit.source is not Source.REFERENCE:
        return []
    return list(unlike(edit.place, edit.alignment, texts))


def _target(
    edit: Operation,
    dims: Dimensions,
    one: Encoded,
    references: Sequence[Tokens],
    kinds: Sequence[Tokens],
    window: int,
) -> Target:
    """Where an edit lands in a prompt, checked in its first cell, in a reference of each kind."""
    address, tokens = edit.place, one.tokens
    own, ranges = sides(edit.address, dims, tokens), spanned(edit.address, dims, tokens)
    here = own.changed
    # The last query attends to every key.
    first = {
        star: ranges[star][-1 if chosen == "q_pos" else 0]
        for star, chosen in _starred(here)
        if star in ranges
    }
    # Nor does the last one, where there is a window: which cells there are is the plan's to say.
    edit.check_together(replace(here, reaches=()).regions(**first), dims.causal)
    found, moved, live = [], [], 0
    others = others_of(edit, one, references)
    for other in kinds if edit.source is Source.REFERENCE else others:
        there = counterpart(address, dims, tokens, other, edit.alignment)
        there = renamed(edit.address, there)
        found.append(there)
        moved.append(_moved(edit, tokens, other))
        if edit.source is Source.DONOR and there == here and edit.alignment == SAME:
            live = _alike(tokens, other) if dims.causal else 0
    if window > 1:
        _check_window(edit, window)
    lands, *found = (_widened(one, dims, window) for one in (own.lands, *found))
    return Target(lands, ranges, tuple(found), tuple(moved), live, own.share)


def _check_window(edit: Operation, window: int) -> None:
    """Raise `SweepError` unless an edit may be made in a window around each of its layers."""
    place = edit.address
    starred = isinstance(place, Address) and "layer" in place.stars
    if not starred or "k_pos" in edit.lands.site.axes:
        raise SweepError(
            f"'{edit}' is made in no window of {many(window, 'layer')}: that is around each layer "
            "of L*, at any site but pattern."
        )


def _widened(lands: Layout, dims: Dimensions, window: int) -> Layout:
    """Places with the layers around each that the star is."""
    if window == 1:
        return lands
    own = tuple(window_of(layer, window, dims.n_layers) for layer in range(dims.n_layers))
    return replace(lands, windows=own)


def _moved(edit: Operation, tokens: Tokens, other: Tokens) -> Mapping[str, Column]:
    """Where each star on a position is in another text, by the stars' names in a cell."""
    found = aligned_stars(edit.place, tokens, other, edit.alignment)
    star = edit.address.position_star if isinstance(edit.address, Edge) else None
    return found if star is None else dict(zip([star], found.values(), strict=False))


def _starred(found: Layout) -> Iterator[tuple[str, str]]:
    """The stars of a layout, each with the axis that it is on."""
    if isinstance(found.layers, str):
        yield found.layers, "layer"
    for axis, chosen in zip(found.site.axes, found.indices, strict=True):
        if isinstance(chosen, str):
            yield chosen, axis


def _alike(one: Tokens, other: Tokens) -> int:
    """How many tokens two texts begin with in common; none where they are of two lengths."""
    if len(one) != len(other):
        return 0
    differ = np.flatnonzero(np.array(one.ids) != np.array(other.ids))
    return int(differ[0]) if len(differ) else len(one)


def _varied(edits: Sequence[Operation], over: Mapping[str, Sequence[Any]]) -> tuple[Axis, ...]:
    known = [f.name for edit in edits for f in edit.parameters()]
    for name, values in over.items():
        if name not in known:
            have = listing(dict.fromkeys(known)) or "none"
            raise SweepError(
                f"over= names {name!r}, which is no parameter of {listing(edits)}. "
                f"Parameters: {have}.{did_you_mean(name, known)}"
            )
        if not is_list(values):
            raise SweepError(
                f"over={{{name!r}: …}} takes a list of values, a range or an array, with at least "
                f"one, not {values!r}."
            )
        labels = [coordinate(value) for value in values]
        if len(set(labels)) < len(labels):
            raise SweepError(f"over={{{name!r}: …}} holds a value twice: {listing(labels)}.")
    return tuple(Axis(name, tuple(map(single, values))) for name, values in over.items())


def is_list(values: object) -> bool:
    """Whether something is a list, a range, an array or a tensor of values, with at least one.

    >>> is_list(range(3)), is_list(np.linspace(0, 1, 5)), is_list("add"), is_list(np.array(1.0))
    (True, True, False, False)
    """
    if isinstance(values, str | Mapping | set | frozenset) or not hasattr(values, "__getitem__"):
        return False
    try:
        return len(values) > 0  # type: ignore[arg-type]
    except TypeError:  # one number, as an array of no dimension
        return False


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
    if hasattr(value, "detach"):  # numpy knows no bfloat16
        value = value.detach().cpu().double().numpy()
    try:
        array = np.asarray(value)
    except ValueError:  # rows of different lengths
        return str(value)
    if array.dtype.kind in "iuf":
        return array.astype(np.float64).tolist()
    # An array's own text leaves out its middle.
    return str(value.tolist() if isinstance(value, np.ndarray) else value)


def _variants(
    edits: Sequence[Operation], varied: Sequence[Axis]
) -> Iterator[tuple[Operation, ...]]:
    """The edits with every combination of the varied parameters."""
    names = [axis.name for axis in varied]
    for values in itertools.product(*(axis.values for axis in varied)):
        parameters = dict(zip(names, values, strict=True))
        yield tuple(edit.having(**parameters) for edit in edits)
