"""A way: where an edit of a detour is made, and where in the pass what comes of it is put."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from transformers import PreTrainedModel

from microtome.language.regions import Column
from microtome.model.anatomy import Anatomy
from microtome.model.families.taps import Tap
from microtome.passes.visits import Place

Put = Callable[[Tensor], None]
"""Puts what came of an edit into a view of the place where the way ends."""


@dataclass(frozen=True, eq=False)
class Way(ABC):
    """The way of one site in one layer.

    Values that are edited are those of pairs: of a head in a row.
    """

    hf: PreTrainedModel
    anatomy: Anatomy
    layer: int

    is_headed = True

    @property
    @abstractmethod
    def heads(self) -> int:
        """How many heads the site has; 1 where it has no such axis."""

    @property
    @abstractmethod
    def begin(self) -> Place:
        """Where it begins."""

    @property
    @abstractmethod
    def end(self) -> Place:
        """Where it ends."""

    @property
    def tap(self) -> Tap | None:
        """Where the values at its end are, if that is not where the site is."""
        return None

    @abstractmethod
    def whole(self, seen: Tensor) -> Tensor:
        """All values of the site, ``[row, *axes]``."""

    @abstractmethod
    def parts(self, seen: Tensor, rows: Column, heads: Column) -> Float[Tensor, "pair pos d_model"]:
        """A copy of the values of some pairs."""

    @abstractmethod
    def change(
        self,
        before: Float[Tensor, "pair pos d_model"],
        after: Float[Tensor, "pair pos d_model"],
        rows: Column,
        heads: Column,
    ) -> Put:
        """What puts the change of some pairs in its place."""

    @abstractmethod
    def pulled(self, seen: Tensor, slope: Tensor) -> Tensor:
        """The gradient at the site, ``[row, *axes]``, of the one where the way ends.

        Args:
            seen: what was seen where it begins, in the pass that the gradient is of.
            slope: the gradient where it ends.
        """

    def replaced(
        self, whole: Tensor, rows: Tensor, heads: Tensor, after: Float[Tensor, "pair pos d_model"]
    ) -> Tensor:
        """All values of the site, after the edit of some pairs."""
        edited = whole.clone(memory_format=torch.contiguous_format)
        edited[rows, :, heads] = after
        return edited
