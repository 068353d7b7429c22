"""Numbers that a user gives to an edit: one, or a tensor of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import ArrayLike
from torch import Tensor

from microtome.errors import EditError
from microtome.model.devices import onto
from microtome.texts import brief


@dataclass(frozen=True, eq=False)
class Values:
    """An immutable array of numbers, equal by content; its text is a nested list.

    >>> Values.of([0.5, 2]) == Values.of((0.5, 2.0)), str(Values.of([0.5, 2]))
    (True, '[0.5, 2.0]')
    """

    array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]

    @classmethod
    def of(cls, given: Values | Tensor | ArrayLike) -> Values:
        """Values from a number, a nested list, an array or a tensor.

        Raises:
            EditError: they are not numbers, or not all finite.
        """
        if isinstance(given, Values):
            return given
        if isinstance(given, Tensor):
            given = given.detach().cpu().to(torch.float64).numpy()
        try:
            numbers = np.asarray(given)
        except ValueError:  # rows of different lengths
            numbers = np.empty(0, dtype=object)
        if numbers.dtype.kind not in "iuf":
            raise EditError(f"Expected a finite number or an array of them, not {given!r}.")
        array = np.array(numbers, dtype=np.float64)
        array += 0.0  # -0 becomes 0, and hashes as it
        if not np.isfinite(array).all() or not array.size:
            raise EditError("Values must be finite numbers, at least one.")
        array.flags.writeable = False
        return cls(array)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape; () for one number."""
        return self.array.shape

    def like(self, x: Tensor) -> Float[Tensor, "..."]:
        """These values as a tensor of x's type, on its device."""
        return onto(x.device, self.array.copy()).to(x.dtype)

    def fit(self, shape: tuple[int, ...], edit: object, *also: tuple[int, ...]) -> None:
        """Raise `EditError` unless this is one number or has one of the given shapes."""
        if self.shape not in ((), shape, *also):
            accepted = " or ".join(str(list(s)) for s in dict.fromkeys((shape, *also)))
            raise EditError(
                f"{brief(str(edit))}: given an array of shape {list(self.shape)}, where one number "
                f"or {accepted} fits. Nothing is broadcast."
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
