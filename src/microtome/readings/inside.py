"""Metrics inside the model: numbers read off activations while the cells of a sweep run.

A gauge is asked for by name, with the address of what it reads: ``std(L*.resid_post)``, the spread
of the hidden states in every layer; ``distance(L*.z.h*@-1)``, how far each head's output is from
the clean run; ``cosine(L*.resid_post@3, 5)``, the similarity of two tokens. Every star of its
address is a dimension of its own in the result, named ``at_layer``, `at_head``, …; a star as the
second position of a cosine is ``at_other``. Nothing is kept but these numbers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.errors import AddressError, MetricError
from microtome.language.addresses import Address, parse
from microtome.language.regions import Layout
from microtome.language.selectors import Everything, Index, Star
from microtome.language.sites import POSITIONS, Dimensions, Site, dimension
from microtome.model.devices import numbers
from microtome.prompts.encoding import Encoded
from microtome.prompts.resolve import check, layout, spans

PREFIX = "at_"
OTHER = PREFIX + "other"


@dataclass(frozen=True)
class Inside:
    """A number read off activations.

    Attributes:
        about: what it is, in words.
        unit: its unit.
        range: its least and greatest value.
        direction: what a larger value means.
        compute: values of some cells ``[cell, …, n]`` and those of the clean run ``[1, …, n]`` →
            one number per row, ``[cell, …]``; None for the cosine, which reads two positions.
    """

    name: str
    about: str
    unit: str
    range: tuple[float, float]
    direction: str
    compute: Callable[[Tensor, Tensor], Tensor] | None = None


_INF = float("inf")

INSIDE: Mapping[str, Inside] = MappingProxyType(
    {
        m.name: m
        for m in (
            Inside("norm", "the L2 norm of the addressed activations", "activation",
                   (0, _INF), "more is larger", lambda own, clean: own.norm(dim=-1)),
            Inside("std", "the standard deviation of the addressed activations", "activation",
                   (0, _INF), "more is a wider spread",
                   lambda own, clean: own.std(dim=-1, correction=0)),
            Inside("distance", "the L2 norm of the addressed activations' difference from the "
                   "clean run", "activation", (0, _INF), "0 is no change",
                   lambda own, clean: (own - clean).norm(dim=-1)),
            Inside("cosine", "the cosine of the activations at two positions; none for zeros",
                   "cosine",
                   (-1, 1), "1 is the same direction"),
        )
    }
)  # fmt: skip
"""Name → metric inside the model."""


@dataclass(frozen=True)
class Gauge:
    """A metric inside the model as asked for.

    ``str(gauge)`` is its canonical text and the variable's name in a result.

    Attributes:
        metric: what is computed.
        address: what it reads; its layers are one layer or a star.
        other: for the cosine, the second position: an address on the same site.
    """

    inside: ClassVar[bool] = True

    metric: Inside
    address: Address
    other: Address | None = None

    def __str__(self) -> str:
        other = "" if self.other is None else f", {self.other.places[0]}"
        return f"{self.metric.name}({self.address}{other})"

    @property
    def site(self) -> Site:
        """Where it reads."""
        return self.address.site

    @property
    def dims(self) -> tuple[str, ...]:
        """The dimensions that it adds to a result."""
        own = tuple(PREFIX + star for star in self.address.stars)
        starred = self.other is not None and self.other.places[0] == Star()
        return (*own, OTHER) if starred else own

    def places(self, dims: Dimensions) -> list[tuple[Site, int]]:
        """The sites of layers that it reads."""
        chosen = self.address.layers
        layers = [chosen.value % dims.n_layers] if isinstance(chosen, Index) else None
        return [(self.site, layer) for layer in layers or range(dims.n_layers)]

    def check(self, one: Encoded, dims: Dimensions) -> None:
        """Raise unless the model and the prompt have what this reads.

        Raises:
            AddressError, PromptError: the address names nothing here.
            MetricError: it reads several layers together, or a cosine several positions.
        """
        check(self.address, dims, one.tokens)
        if self.other is not None:
            check(self.other, dims, one.tokens)
        found = self.on(one, dims)
        if not isinstance(self.address.layers, Index | Star):
            raise MetricError(f"{self}: write a star, L*, to read several layers, each by itself.")
        several = (
            len(found.here) > 1 and "pos" not in self.address.stars,
            len(found.there) > 1 and OTHER not in self.dims,
        )
        if self.other is not None and any(several):
            raise MetricError(f"{self}: a cosine is between two positions; write @* for every one.")

    def on(self, one: Encoded, dims: Dimensions) -> Fitted:
        """This gauge on one prompt."""
        tokens = one.tokens
        sizes = {
            name: len(span)
            for address in (self.address, self.other)
            if address is not None
            for name, span in spans(address, dims, tokens).items()
        }
        mine = layout(self.address, dims, tokens)
        other = None if self.other is None else layout(self.other, dims, tokens)
        return Fitted(self, mine, other, sizes)


@dataclass(frozen=True, eq=False)
class Fitted:
    """A gauge on one prompt.

    Attributes:
        own: where its address lands.
        other: where the second position of a cosine lands.
        sizes: how many values each star has.
    """

    gauge: Gauge
    own: Layout
    other: Layout | None
    sizes: Mapping[str, int]

    @cached_property
    def layers(self) -> Sequence[int]:
        """The layers that it reads."""
        chosen = self.own.layers
        if isinstance(chosen, str):
            return range(self.sizes[chosen])
        return chosen or ()

    @cached_property
    def here(self) -> tuple[int, ...]:
        """The positions that its address reads."""
        return self._positions(self.own)

    @cached_property
    def there(self) -> tuple[int, ...]:
        """The second positions of a cosine."""
        return () if self.other is None else self._positions(self.other)

    @cached_property
    def positions(self) -> tuple[int, ...]:
        """All positions that it reads, in order."""
        return tuple(sorted({*self.here, *self.there}))

    @property
    def shape(self) -> tuple[int, ...]:
        """How many values it has along each of its dimensions."""
        stars = tuple(self.sizes[star] for star in self.gauge.address.stars)
        return (*stars, len(self.there)) if OTHER in self.gauge.dims else stars

    def bytes_of_looking(self, dims: Dimensions, itemsize: int) -> int:
        """What one cell takes while a layer of it is measured: copies of its values, and pairs."""
        units = math.prod(dims.size(axis) for axis in self.own.site.axes if axis not in POSITIONS)
        copied = 2 * len(self.positions) * itemsize
        exact = (len(self.here) + len(self.there)) * (3 * 8 + itemsize)
        pairs = 4 * 8 * math.prod(self.shape) // max(1, len(self.layers))
        return units * (copied + exact) + pairs

    def within(self, layer: int) -> tuple[int, ...]:
        """The index of a layer in an array of its shape."""
        return (self.layers.index(layer),) if isinstance(self.own.layers, str) else ()

    def _positions(self, found: Layout) -> tuple[int, ...]:
        chosen = found.indices[found.site.axes.index("pos")]
        return tuple(range(self.sizes[chosen])) if isinstance(chosen, str) else chosen

    def measure(
        self,
        values: Float[Tensor, "cell pos *units"],
        clean: Float[Tensor, "1 pos *units"],
    ) -> Float[Tensor, " cell *stars"]:
        """Its value in each cell, in float64.

        Args:
            values: a site's values at `positions`, in one layer.
            clean: the same of the clean run.
        """
        compute = self.gauge.metric.compute
        if compute is not None:
            result: Tensor = compute(self._rows(values, self.own), self._rows(clean, self.own))
            return result
        assert self.other is not None, "the cosine has a second position"
        one, two = (self._rows(values, found) for found in (self.own, self.other))
        stars = self.gauge.address.stars
        one = one if "pos" in stars else one.unsqueeze(-2)
        two = two if OTHER in self.gauge.dims else two.unsqueeze(-2)
        lengths = one.norm(dim=-1)[..., :, None] * two.norm(dim=-1)[..., None, :]
        cosines: Tensor = (one @ two.transpose(-1, -2) / lengths).clamp(-1, 1)
        cosines = cosines if OTHER in self.gauge.dims else cosines.squeeze(-1)
        return cosines if "pos" in stars else cosines.squeeze(-1 - (OTHER in self.gauge.dims))

    def _rows(self, values: Tensor, found: Layout) -> Float[Tensor, "cell *stars n"]:
        """What is addressed, ``[cell, *stars, n]``: stars in the order of the dimensions."""
        starred = []
        for number, (axis, chosen) in enumerate(
            zip(found.site.axes, found.indices, strict=True), start=1
        ):
            if axis in POSITIONS:
                wanted = self._positions(found)
                indices = [self.positions.index(position) for position in wanted]
                values = values.index_select(number, numbers(values.device, indices))
            elif not isinstance(chosen, str):
                values = values.index_select(number, numbers(values.device, chosen))
            if isinstance(chosen, str):
                starred.append((axis in POSITIONS, number))
        order = [number for _, number in sorted(starred)]
        rest = [number for number in range(1, values.ndim) if number not in order]
        moved = values.double().permute(0, *order, *rest)
        return moved.flatten(1 + len(order))


def gauge(text: str) -> Gauge | None:
    """The gauge that a text names; None where it is not of a gauge's form.

    Raises:
        MetricError: it is of the form and cannot be read.
        AddressError: the address in it cannot be read.

    >>> str(gauge("cosine(L*.hidden@3,*)")), gauge("cosine(L*.hidden@3,*)").dims
    ('cosine(L*.resid_post@3, *)', ('at_layer', 'at_other'))
    """
    name, bracket, inner = text.strip().partition("(")
    if name not in INSIDE:
        return None
    metric = INSIDE[name]
    if not bracket or not inner.endswith(")"):
        raise MetricError(f"{text!r}: {name} reads activations: write {name}(L*.resid_post@-1).")
    inner = inner[:-1].strip()
    if metric.compute is not None:
        return Gauge(metric, _inside(text, parse(inner)))
    for first, second in _cuts(inner):
        try:
            address = _inside(text, parse(first))
            # The second position is read as an address on the same site.
            whole = parse(f"{_without_place(address)}@{second}")
        except AddressError:
            continue
        return Gauge(metric, address, whole)
    raise MetricError(
        f"Cannot read {text!r}: a cosine is between two positions, such as "
        "cosine(L*.resid_post@3, 5)."
    )


def _inside(text: str, address: Address) -> Address:
    if address.site.name == "pattern":
        raise MetricError(
            f"{text!r}: metrics read what a token has at a site, and an attention weight is one of "
            "two tokens. Keep the weights and compute with them: "
            "model.run(…, keep=['L5.pattern'])['L5.pattern']."
        )
    if address.label:
        raise MetricError(
            f"{text!r}: the stars of a metric have names of their own already, at_layer and so on; "
            f"leave out 'as {address.label}'."
        )
    if address.layers is None or "pos" not in address.site.axes:
        raise MetricError(f"{text!r} reads activations of layers, such as L*.resid_post@-1.")
    return address


def _cuts(inner: str) -> Iterator[tuple[str, str]]:
    """A text cut in two at each of its commas, the last one first."""
    for at in reversed([n for n, letter in enumerate(inner) if letter == ","]):
        yield inner[:at], inner[at + 1 :].strip()


def _without_place(address: Address) -> str:
    """The text of an address without its positions."""
    selectors = tuple(
        Everything() if axis in POSITIONS else selector
        for axis, selector in zip(address.site.axes, address.selectors, strict=True)
    )
    return str(Address(address.site, address.layers, selectors))


def dimension_of(name: str) -> str:
    """The axis that a gauge's dimension counts.

    >>> dimension_of("at_head"), dimension_of("at_other")
    ('head', 'pos')
    """
    return "pos" if name == OTHER else dimension(name.removeprefix(PREFIX))
