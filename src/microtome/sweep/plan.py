"""The plan of a sweep: its axes and cells, and what they cost. Pure: no tensor is touched.

A star of the addresses is an axis, and edits that star the same thing move along it together; so
is a parameter given in ``over=``. A cell is one point of the product: edits without stars, for
one prompt. Cells that do not exist (a position beyond a shorter prompt) are absent.

This is the seam for engines: an engine receives a plan and computes its cells in any order that
it likes; `sweep.reference` takes them one by one.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from microtome.addresses import counterpart, regions, spans
from microtome.edits import Edit, Source
from microtome.errors import SweepError, did_you_mean, listing
from microtome.interventions import donor_of
from microtome.prompts import Encoded
from microtome.sites import Dimensions


@dataclass(frozen=True)
class Axis:
    """A dimension of the map and its coordinates."""

    name: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Cell:
    """One point of the map: where it stands along each axis, and its edits, without stars."""

    index: tuple[int, ...]
    edits: tuple[Edit, ...]

    @property
    def prompt(self) -> int:
        """Index of its prompt: the first axis."""
        return self.index[0]


@dataclass(frozen=True)
class Cost:
    """What a sweep takes on the reference path.

    Attributes:
        passes: full forward passes: cells, clean runs, donors and reference prompts.
        flops: floating-point operations of all of them, multiplications and additions.
        bytes: memory at any one time besides the weights, roughly.
    """

    passes: int
    flops: float
    bytes: float


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in order, prompt by prompt."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    cost: Cost

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of the map along each axis."""
        return tuple(len(axis.values) for axis in self.axes)

    def of_prompt(self, prompt: int) -> Iterator[Cell]:
        """The cells of one prompt."""
        return (cell for cell in self.cells if cell.prompt == prompt)


def make_plan(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Sequence[Encoded] = (),
    bytes_per_value: int = 4,
) -> Plan:
    """The plan of a sweep.

    Args:
        dims: the model's.
        encoded: the prompts.
        edits: together they make one cell; at least one.
        over: values for parameters of the edits, each an axis of its own name.
        reference: the prompts that a mean over prompts averages over.
        bytes_per_value: of the model's activations.

    Raises:
        SweepError: there is no edit, or ``over`` names what no edit has.
        AddressError, EditError, PromptError: an edit does not fit the model or a prompt.
    """
    if not edits:
        raise SweepError("A sweep needs an edit, such as zero('L*.z.h*').")
    varied = _varied(edits, over or {})
    for one in encoded:
        _check(edits, dims, one, reference)
    ranges = [_ranges(edits, dims, one) for one in encoded]
    stars = [Axis(name, tuple(range(max(len(r[name]) for r in ranges)))) for name in ranges[0]]
    axes = (Axis("prompt", tuple(range(len(encoded)))), *stars, *varied)
    cells = tuple(
        Cell((prompt, *where, *which), tuple(edit.at(**fixed) for edit in chosen))
        for prompt, spans_ in enumerate(ranges)
        for where in itertools.product(*spans_.values())
        for fixed in (dict(zip(spans_, where, strict=True)),)
        for which, chosen in _variants(edits, varied)
    )
    return Plan(axes, cells, _cost(dims, encoded, edits, len(cells), reference, bytes_per_value))


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
        if len(set(values)) < len(values):
            raise SweepError(f"over={{{name!r}: …}} holds a value twice: {list(values)}.")
    return tuple(Axis(name, tuple(values)) for name, values in over.items())


def _variants(
    edits: Sequence[Edit], varied: Sequence[Axis]
) -> list[tuple[tuple[int, ...], tuple[Edit, ...]]]:
    """The edits with every combination of the varied parameters."""
    made = []
    for which in itertools.product(*(range(len(axis.values)) for axis in varied)):
        values = {axis.name: axis.values[n] for axis, n in zip(varied, which, strict=True)}
        made.append((which, tuple(_with(edit, values) for edit in edits)))
    return made


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
        spans_ = spans(edit.address, dims, one.tokens)
        first = edit.at(**{name: span[0] for name, span in spans_.items()})
        for region in regions(first.address, dims, one.tokens):
            edit.check(region)
        others = [donor_of(edit, one)] if edit.source is Source.DONOR else []
        if edit.source is Source.REFERENCE:
            others = [other.tokens for other in reference]
        for other in others:
            regions(counterpart(first.address, one.tokens, other), dims, other)


# ------------------------------------------------------------------------------------------ cost


def flops_of_pass(dims: Dimensions, tokens: int) -> float:
    """Operations of one full forward pass: the matrix products, with 2 per multiply-add."""
    width = dims.n_heads * dims.d_head
    kv_width = dims.n_kv_heads * dims.d_head
    weights = dims.d_model * (2 * width + 2 * kv_width + 2 * dims.d_mlp)
    attention = 2 * tokens * width
    per_token = dims.n_layers * (weights + attention) + dims.d_model * dims.d_vocab
    return 2.0 * tokens * per_token


def _cost(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    cells: int,
    reference: Sequence[Encoded],
    bytes_per_value: int,
) -> Cost:
    sources = {edit.source for edit in edits}
    lengths = [len(one.tokens) for one in encoded]
    passes = cells + len(encoded)
    flops = sum(flops_of_pass(dims, n) for n in lengths) * (1 + cells / len(encoded))
    if Source.DONOR in sources:
        passes += len(encoded)
        flops += sum(flops_of_pass(dims, len(one.donor or one.tokens)) for one in encoded)
    if Source.REFERENCE in sources:
        passes += len(reference)
        flops += sum(flops_of_pass(dims, len(one.tokens)) for one in reference)
    longest = max(lengths)
    logits = 2 * longest * dims.d_vocab
    block = longest * (8 * dims.d_model + dims.d_mlp) + dims.n_heads * longest**2
    return Cost(passes, flops, float(bytes_per_value * (logits + block)))
