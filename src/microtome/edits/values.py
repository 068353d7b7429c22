"""Numbers that a user gives to an edit: one, or a tensor of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from microtome.errors import EditError, listing
from microtome.language.sites import counted, dimension
from microtome.model.devices import onto
from microtome.texts import brief

STRIDED = torch.strided
"""How tensors lie that have all their numbers, one behind the other."""


@dataclass(frozen=True, eq=False)
class Values:
    """An immutable array of numbers, equal by content; its text is a nested list.

    >>> Values.of([0.5, 2]) == Values.of((0.5, 2.0)), str(Values.of([0.5, 2]))
    (True, '[0.5, 2.0]')
    """

    array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]
    axes: tuple[str, ...] = ()
    """The names of its axes, where it was given with names."""

    @classmethod
    def of(cls, given: Values | Tensor | ArrayLike) -> Values:
        """Values from a number, a nested list, an array or a tensor.

        Raises:
            EditError: they are not numbers, or not all finite, or some are masked.
        """
        if isinstance(given, Values):
            return given
        axes = tuple(map(str, getattr(given, "dims", ())))  # xarray's
        numbers = _numbers(given)
        if numbers.dtype.kind not in "iuf":
            raise EditError(f"Expected a finite number or an array of them, not {_shown(given)}.")
        array = np.array(numbers, dtype=np.float64)
        array += 0.0  # -0 becomes 0, and hashes as it
        if not np.isfinite(array).all() or not array.size:
            raise EditError("Values must be finite numbers, at least one.")
        array.flags.writeable = False
        return cls(array, axes)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; () for one number."""
        return self.array.shape

    def like(self, x: Tensor) -> Float[Tensor, "..."]:
        """These values as a tensor of x's type, on its device."""
        return onto(x.device, self.array.copy()).to(x.dtype)

    def fit(
        self, shape: tuple[int, ...], axes: tuple[str, ...], edit: object, *also: tuple[int, ...]
    ) -> None:
        """Raise `EditError` unless this is one number or has one of the given shapes.

        ``axes`` are the names of the region's axes: an array whose own have names is not taken for
        another one of the same shape.
        """
        if self.shape not in ((), shape, *also):
            accepted = " or ".join(str(list(s)) for s in dict.fromkeys((shape, *also)))
            raise EditError(
                f"{brief(str(edit))}: given an array of shape {list(self.shape)}, where one number "
                f"or {accepted} fits. Nothing is broadcast."
            )
        self.check_names(axes, edit)

    def check_names(self, axes: tuple[str, ...], edit: object) -> None:
        """Raise `EditError` where an array's axes have names, and others than the region's."""
        own = [dimension(name) for name in self.axes if not name.startswith("dim_")]  # for none
        if len(own) == 1 and counted(own[0]) in (None, "d"):  # any name that a vector's owner has
            return
        if own != [axis for axis in map(dimension, axes) if axis in own]:
            raise EditError(
                f"{brief(str(edit))}: given an array with the axes {listing(self.axes)}, and "
                f"those here are {listing(axes)}, in this order. Bring it into it, "
                "array.transpose(…); or give array.values, if its numbers are meant as they stand."
            )

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Values) and np.array_equal(self.array, other.array)

    def __hash__(self) -> int:
        return hash((self.shape, self.array.tobytes()))

    def __str__(self) -> str:
        return self._text

    @cached_property
    def _text(self) -> str:
        if self.shape == ():
            one = float(self.array)
            return str(int(one)) if one.is_integer() and math.fabs(one) < 1e15 else repr(one)
        return str(self.array.tolist())


def _numbers(given: Tensor | ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[Any]]:
    """What is given as an array; an empty one of objects, where it is none of numbers."""
    none = np.empty(0, dtype=object)
    if isinstance(given, Tensor):
        if given.is_complex() or given.is_meta or given.is_quantized or given.layout != STRIDED:
            return none
        return given.detach().cpu().to(torch.float64).numpy()
    if np.ma.is_masked(given):
        return none
    try:
        return np.asarray(given)
    except ValueError:  # rows of different lengths
        return none


def _shown(given: object) -> str:
    """What is given, in a line of a message."""
    if isinstance(given, Tensor):
        return f"a tensor of {given.dtype}, {given.layout}, on {given.device}"
    return brief(repr(given))
