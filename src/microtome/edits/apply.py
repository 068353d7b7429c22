"""A function of the user's own."""

from __future__ import annotations

import pkgutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit
from microtome.errors import EditError, glimpse
from microtome.spoken import spoken


@spoken
@dataclass(frozen=True)
class Apply(Edit):
    """The addressed values become a function of themselves.

    Args:
        fn: maps a tensor ``[cell, *region]`` to one of the same shape and type, each cell by
            itself, without changing its argument. A text ``"package.module:name"`` imports it;
            that is also its text form, so a lambda runs but cannot be parsed back.

    >>> import torch
    >>> str(Apply("L5.z.h3", torch.sign))
    'apply("torch:sign") L5.z.h3'
    """

    name: ClassVar[str] = "apply"

    fn: Callable[[Tensor], Tensor]

    def __post_init__(self) -> None:
        super().__post_init__()
        given: object = self.fn
        if isinstance(given, str):
            object.__setattr__(self, "fn", _imported(given))
        if not callable(self.fn):
            raise EditError(f"apply takes a function, or 'package.module:name', not {self.fn!r}.")

    @property
    def rowwise(self) -> bool:
        """Nobody knows what the function looks at."""
        return False

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """What the function makes of a copy of the values."""
        changed = self.fn(values.clone())
        if not isinstance(changed, Tensor) or changed.shape != values.shape:
            found = (
                f"shape {list(changed.shape)}" if isinstance(changed, Tensor) else glimpse(changed)
            )
            raise EditError(
                f"{self}: the function must return a tensor of shape {list(values.shape)}, "
                f"as it was given; it returned {found}."
            )
        return changed.to(values)

    def __str__(self) -> str:
        module = getattr(self.fn, "__module__", None) or "torch"
        qualified = getattr(self.fn, "__qualname__", type(self.fn).__qualname__)
        # torch's built-in functions name a private class as their owner, but stand in the module.
        for name in (getattr(self.fn, "__name__", qualified), qualified):
            if getattr(sys.modules.get(module), name, None) is self.fn:
                return f'{self.name}("{module}:{name}") {self.address}'
        return f'{self.name}("{module}:{qualified}") {self.address}'


def _imported(path: str) -> Callable[[Tensor], Tensor]:
    try:
        found: Callable[[Tensor], Tensor] = pkgutil.resolve_name(path)
    except Exception as error:  # the module is the user's, and may raise anything
        raise EditError(
            f"apply cannot import {path!r}: {error or type(error).__name__}."
        ) from error
    return found
