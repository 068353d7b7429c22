"""The plan of a sweep: its axes and cells, which engine takes them, and what they cost.

Pure: no tensor is touched. A star of the addresses is an axis, and edits that star the same thing
move along it together; so is a parameter given in ``over=``. A cell is one point of the product:
edits without stars, for one prompt. Cells that do not exist (a position beyond a shorter prompt)
are absent.

A plan is the seam between the question and the engines: an engine computes its cells in any order
that it likes. `sweep.reference` takes them one by one, `sweep.engine` walks them together.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from microtome.addresses import Region, counterparts, regions, spans
from microtome.edits import Edit, Source
from microtome.errors import SweepError, did_you_mean, listing
from microtome.interventions import others_of
from microtome.prompts import Encoded
from microtome.sites import Dimensions

ENGINES = ("auto", "walk", "reference")

DEFAULT_MEMORY = 2 * 2**30
"""Bytes for the walk's batches besides the model, unless ``memory=`` says otherwise."""


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

    @property
    def layer(self) -> int:
        """The first layer that it edits."""
        return min(region.layer or 0 for group in self.places for region in group)

    @property
    def position(self) -> int:
        """The first position that it edits."""
        return min(
            region.indices[region.site.axes.index("pos")][0]
            for group in self.places
            for region in group
        )


@dataclass(frozen=True)
class Choice:
    """The engine that takes a sweep's cells, and the reason in words."""

    engine: str
    why: str


@dataclass(frozen=True)
class Cost:
    """What a sweep takes.

    Attributes:
        token_blocks: how often some block is run on some token, for the cells.
        flops: floating-point operations, multiplications and additions: cells, clean runs, donors
            and reference prompts. Without what metrics need of the vocabulary.
        passes: full forward passes of the same number of operations.
        reference_passes: forward passes that the reference path makes for the same map.
        bytes: memory at any one time besides the weights, roughly.
    """

    token_blocks: int
    flops: float
    passes: float
    reference_passes: int
    bytes: float


@dataclass(frozen=True)
class Plan:
    """The cells of a sweep, in order, prompt by prompt; who takes them, and at what cost."""

    axes: tuple[Axis, ...]
    cells: tuple[Cell, ...]
    choice: Choice
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
    engine: str = "auto",
    memory: int = DEFAULT_MEMORY,
    itemsize: int = 4,
) -> Plan:
    """The plan of a sweep.

    Args:
        dims: the model's.
        encoded: the prompts.
        edits: together they make one cell; at least one.
        over: values for parameters of the edits, each an axis of its own name.
        reference: the prompts that a mean over prompts averages over.
        engine: ``"walk"``, ``"reference"``, or ``"auto"``: the walk wherever it can go.
        memory: bytes for the walk's batches.
        itemsize: bytes of one of the model's activations.

    Raises:
        SweepError: there is no edit, ``over`` names what no edit has, or the walk is asked for
            where it cannot go.
        AddressError, EditError, PromptError: an edit does not fit the model or a prompt.
    """
    if not edits:
        raise SweepError("A sweep needs an edit, such as zero('L*.z.h*').")
    choice = choose(engine, edits)
    varied = _varied(edits, over or {})
    for one in encoded:
        for _, chosen in _variants(edits, varied):
            _check(chosen, dims, one, reference)
    ranges = [_ranges(edits, dims, one) for one in encoded]
    stars = [Axis(name, tuple(range(max(len(r[name]) for r in ranges)))) for name in ranges[0]]
    axes = (Axis("prompt", tuple(range(len(encoded)))), *stars, *varied)
    cells = tuple(_cells(dims, encoded, edits, ranges, varied))
    cost = _cost(dims, encoded, edits, cells, reference, choice, memory, itemsize)
    return Plan(axes, cells, choice, cost)


def choose(engine: str, edits: Sequence[Edit]) -> Choice:
    """The engine for these edits.

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
    return Choice("walk", "one pass through the layers for all cells of a prompt")


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
    edits: Sequence[Edit],
    ranges: Sequence[Mapping[str, range]],
    varied: Sequence[Axis],
) -> Iterator[Cell]:
    variants = _variants(edits, varied)
    for prompt, (one, spans_) in enumerate(zip(encoded, ranges, strict=True)):
        for where in itertools.product(*spans_.values()):
            fixed = dict(zip(spans_, where, strict=True))
            addresses = [edit.address.fix(**fixed) for edit in edits]
            places = tuple(regions(address, dims, one.tokens) for address in addresses)
            for which, chosen in variants:
                placed = zip(chosen, addresses, strict=True)
                own = tuple(replace(edit, address=address) for edit, address in placed)
                yield Cell((prompt, *where, *which), own, places)


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
    if isinstance(value, np.generic):
        value = value.item()
    return value if isinstance(value, str | int | float) else str(value)


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
        for other in others_of(edit, one, [r.tokens for r in reference]):
            counterparts(first.address, dims, one.tokens, other)


# ------------------------------------------------------------------------------------------ cost


def flops_of_block(dims: Dimensions, tokens: int, seen: int) -> float:
    """Operations of one block on so many tokens, each of which attends to ``seen`` positions.

    The matrix products, with 2 for a multiply-add.
    """
    width = dims.n_heads * dims.d_head
    kv_width = dims.n_kv_heads * dims.d_head
    weights = dims.d_model * (2 * width + 2 * kv_width + 2 * dims.d_mlp)
    return 2.0 * tokens * (weights + 2 * seen * width)


def flops_of_pass(dims: Dimensions, tokens: int) -> float:
    """Operations of one full forward pass, the unembedding included."""
    unembedding = 2.0 * tokens * dims.d_model * dims.d_vocab
    return dims.n_layers * flops_of_block(dims, tokens, tokens) + unembedding


def bytes_of_row(dims: Dimensions, own: int, seen: int, itemsize: int) -> int:
    """Memory of one cell of a batch inside a block: ``own`` positions that attend to ``seen``.

    Residual stream, queries, keys and values, the MLP's intermediate results (an activation
    function makes several), and three copies of the attention scores. Generous, so that what is
    planned fits.
    """
    block = own * (12 * dims.d_model + 6 * dims.d_mlp)
    return itemsize * (block + 3 * dims.n_heads * own * seen)


def _cost(
    dims: Dimensions,
    encoded: Sequence[Encoded],
    edits: Sequence[Edit],
    cells: Sequence[Cell],
    reference: Sequence[Encoded],
    choice: Choice,
    memory: int,
    itemsize: int,
) -> Cost:
    others = [one.tokens for one in encoded]
    sources = {edit.source for edit in edits}
    if Source.DONOR in sources:
        others += [one.donor for one in encoded if one.donor is not None]
    if Source.REFERENCE in sources:
        others += [one.tokens for one in reference]
    lengths = [len(one.tokens) for one in encoded]
    longest = max(lengths)
    whole = flops_of_pass(dims, longest)
    flops = sum(flops_of_pass(dims, len(tokens)) for tokens in others)
    token_blocks = 0
    for cell in cells:
        seen = lengths[cell.prompt]
        walks = choice.engine == "walk"
        layers = dims.n_layers - cell.layer if walks else dims.n_layers
        own = seen - cell.position if walks else seen
        token_blocks += layers * own
        flops += layers * flops_of_block(dims, own, seen)
    clean = itemsize * longest * (dims.d_vocab + 3 * dims.n_layers * dims.d_model)
    row = bytes_of_row(dims, longest, longest, itemsize)
    batch = min(memory, row * len(cells)) if choice.engine == "walk" else row
    return Cost(
        token_blocks=token_blocks,
        flops=flops,
        passes=flops / whole,
        reference_passes=len(cells) + len(others),
        bytes=float(clean + batch),
    )
