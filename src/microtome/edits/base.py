"""What an edit is: a small frozen object that says how the addressed values change."""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import MISSING, Field, dataclass, fields, replace
from numbers import Integral, Real
from typing import Any, ClassVar, Self

import torch
from jaxtyping import Float
from torch import Tensor

from microtome.amounts import is_finite, single
from microtome.errors import EditError, glimpse
from microtome.language.addresses import Address
from microtome.language.edges import Edge, Where, where
from microtome.language.operations import Source
from microtome.language.regions import Region
from microtome.prompts.alignment import SAME
from microtome.texts import brief


@dataclass(frozen=True)
class Context:
    """What an edit may look at besides the values that it changes.

    Attributes:
        axes: the names of the values' axes after the first, such as ``("pos", "d_model")``.
        keys: per cell, a text that names its region and prompt: the root of its random numbers.
        source: what `Edit.source` asks for, at the same region; ``[cell, *region]`` or None.
        chosen: per cell, the addressed indices along the axis that `Edit.widens`, ``[cell, n]``.
        layer: the layer that all cells are edited in; None at a site of no layer.
    """

    axes: tuple[str, ...]
    keys: Sequence[str]
    source: Tensor | None = None
    chosen: Tensor | None = None
    layer: int | None = None

    def generators(self, seed: int) -> list[torch.Generator]:
        """One random generator per cell.

        Its numbers depend on the seed, the region and the prompt, and on nothing else: a cell of
        a sweep draws the same numbers as the same edit run alone, on any device.
        """
        made = []
        for key in self.keys:
            digest = hashlib.sha256(f"{seed}|{key}".encode()).digest()
            made.append(torch.Generator("cpu").manual_seed(int.from_bytes(digest[:7], "big")))
        return made


@dataclass(frozen=True)
class Edit(ABC):
    """An operation on an address.

    Subclasses add their parameters as fields and implement `change`. The text form,
    ``name(parameters) address``, parses to an equal edit.
    """

    name: ClassVar[str]

    widens: ClassVar[str | None] = None
    """An axis along which `change` is given all values, not the addressed ones alone."""

    rounds: ClassVar[bool] = False
    """Whether it computes what would come out as it was, but for rounding, where nothing is to be
    changed: a mean of equal values."""

    on_edges: ClassVar[bool] = False
    """Whether it makes sense of what a reader reads of one writer: its share is changed, and the
    rest of what is read stays."""

    address: Where

    def __post_init__(self) -> None:
        given: object = self.address
        if isinstance(given, str):
            object.__setattr__(self, "address", where(given))
        elif not isinstance(given, Where):
            raise EditError(
                f"{self.name} takes an address such as 'L5.z.h3', not {glimpse(given)}."
            )
        if isinstance(self.address, Edge) and not self.on_edges:
            raise EditError(
                f"{self.name} makes no sense on an edge, {self.address}: what a reader reads of "
                "one writer can be edited by patch, zero, mean, scale, noise and add."
            )

    @property
    def source(self) -> Source:
        """Whose activations this edit needs."""
        return Source.NOTHING

    @property
    def alignment(self) -> str:
        """How positions are found in the texts that `source` names, one of `ALIGNMENTS`."""
        return SAME

    @property
    def rowwise(self) -> bool:
        """Whether row i of a change is known to depend on row i alone.

        It always should; of a user's function nobody knows, so it runs one cell at a time.
        """
        return True

    @property
    def keeps_zeros(self) -> bool:
        """Whether 0 stays 0.

        Attention to later tokens does not exist in a causal model. An address may take it in (a
        head's whole pattern) where the edit leaves its zeros alone.
        """
        return False

    @abstractmethod
    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """New values for the addressed ones.

        Row i of the result depends on row i of the values alone, so any number of cells can be
        changed together.
        """

    def check(self, region: Region, causal: bool = True) -> None:
        """Raise `EditError` if this edit cannot be made on such a region.

        ``causal`` says that the model's tokens do not attend to later ones.
        """
        if self.keeps_zeros:
            return
        own = brief(str(self))
        if causal and region.looks_ahead:
            raise EditError(
                f"{own} takes in attention to later tokens, which does not exist in this model. "
                "Address keys that come before the query, as in L5.pattern.h3@-1,:."
            )
        if region.looks_beyond:
            raise EditError(
                f"{own} takes in attention to tokens more than {region.reach} away, which does "
                f"not exist in layer {region.layer}: its attention has a window. Address keys "
                "inside of it."
            )

    def check_together(self, regions: Sequence[Region], causal: bool = True) -> None:
        """Raise `EditError` if this edit cannot be made in these regions, one a layer, together."""
        for region in regions:
            self.check(region, causal)

    @classmethod
    def parameters(cls) -> tuple[Field[Any], ...]:
        """The fields besides the address."""
        return tuple(f for f in fields(cls) if f.name != "address")

    def at(self, **stars: int) -> Self:
        """This edit with indices in the place of its address's stars."""
        return replace(self, address=self.address.fix(**stars))

    @property
    def place(self) -> Address:
        """Whose values it changes: the address; of an edge, what the writer adds."""
        return self.address.share if isinstance(self.address, Edge) else self.address

    @property
    def lands(self) -> Address:
        """Where that is put: the address; of an edge, what the reader reads."""
        return self.address.heard if isinstance(self.address, Edge) else self.address

    def having(self, **parameters: Any) -> Self:
        """This edit with other parameters; those that it does not have are left out."""
        own = {f.name for f in self.parameters()}
        return replace(self, **{name: v for name, v in parameters.items() if name in own})

    def __str__(self) -> str:
        shown = []
        for f in self.parameters():
            value = getattr(self, f.name)
            if f.default is MISSING:
                shown.append(literal(value))
            elif value != f.default:
                shown.append(f"{f.name}={literal(value)}")
        arguments = f"({', '.join(shown)})" if shown else ""
        return f"{self.name}{arguments} {self.address}"


def literal(value: object) -> str:
    """A parameter as the text form writes it.

    >>> literal(10.0), literal("add"), literal(True)
    ('10', '"add"', 'True')
    """
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e15:
        return str(int(value))
    return str(value) if not isinstance(value, float) else repr(value)


def number(value: object, what: str) -> float:
    """A parameter that must be a finite number.

    Raises:
        EditError: it is not.
    """
    value = single(value)
    if isinstance(value, bool) or not isinstance(value, Real) or not is_finite(value):
        raise EditError(f"{what} must be a finite number, not {glimpse(value)}.")
    return float(value) + 0.0  # -0 becomes 0: they are equal and must read and hash alike


def whole(value: object, what: str) -> int:
    """A parameter that must be a whole number.

    Raises:
        EditError: it is not.
    """
    value = single(value)
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise EditError(f"{what} must be a whole number, not {glimpse(value)}.")
    return int(value)


def truth(value: object, what: str) -> bool:
    """A parameter that must be a truth value.

    Raises:
        EditError: it is not.
    """
    value = single(value)
    if not isinstance(value, bool):
        raise EditError(f"{what} must be True or False, not {glimpse(value)}.")
    return value


def one_of(value: str, options: tuple[str, ...], what: str) -> str:
    """A parameter that must be one of a few words.

    Raises:
        EditError: it is not.
    """
    if value not in options:
        choices = " | ".join(map(repr, options))
        raise EditError(f"{what} must be {choices}, not {glimpse(value)}.")
    return value
