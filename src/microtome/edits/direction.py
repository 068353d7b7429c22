"""What a position's features have along a direction, and how they are given another amount."""

from __future__ import annotations

import math

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context
from microtome.edits.by_layer import Vectors, vector_in
from microtome.edits.values import Values
from microtome.errors import EditError
from microtome.language.regions import Region
from microtome.language.sites import OWNERS, owner
from microtome.texts import brief


def check_direction(vectors: Vectors, region: Region, edit: object) -> None:
    """Raise `EditError` unless there is a direction for a region's features.

    It has the shape of one position's addressed features, of which axes of length 1 may be left
    out, and is not zero.
    """
    direction = vector_in(vectors, region.layer, edit)
    pairs = zip(region.shape, region.site.axes, strict=True)
    shape = tuple(n for n, axis in pairs if axis not in OWNERS)
    squeezed = tuple(n for n in shape if n > 1)
    if direction.shape not in (shape, squeezed) or direction.shape == ():
        raise EditError(
            f"{brief(str(edit))}: given an array of shape {list(direction.shape)}, where a "
            f"direction of one position's features is {list(shape)}. Nothing is broadcast."
        )
    direction.check_names(region.site.axes, edit)
    if not np.abs(direction.array).max() > 0:
        raise EditError(f"{brief(str(edit))}: the vector is zero, which is no direction.")


def along(
    values: Float[Tensor, " cell *region"], vectors: Vectors, context: Context, edit: object
) -> tuple[Float[Tensor, " cell *amounts"], Float[Tensor, " *unit"]]:
    """How much of a direction each position has, in units of the unit vector; and that vector.

    Both in float32 at least, with axes of length 1 where the other has its own.
    """
    direction = vector_in(vectors, context.layer, edit)
    at = owner(context.axes)
    shape = [1 if n == at else size for n, size in enumerate(values.shape[1:])]
    kind = torch.promote_types(values.dtype, torch.float32)
    unit = Values(_unit(direction.array)).like(values.new_empty(0, dtype=kind)).reshape(shape)
    features = [1 + n for n in range(len(shape)) if n != at]
    return (values.to(kind) * unit).sum(features, keepdim=True), unit


def moved(
    values: Float[Tensor, " cell *region"],
    by: Float[Tensor, " cell *amounts"],
    unit: Float[Tensor, " *unit"],
) -> Float[Tensor, " cell *region"]:
    """Values with so much more of a direction; where that is none, they stay as they are."""
    return torch.where(by == 0, values, (values.to(by.dtype) + by * unit).to(values.dtype))


def _unit(array: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> np.ndarray[
    tuple[int, ...], np.dtype[np.float64]
]:  # fmt: skip
    scaled = array / np.abs(array).max()  # a tiny vector's squares are nothing
    found: np.ndarray[tuple[int, ...], np.dtype[np.float64]] = scaled / math.sqrt(
        float((scaled**2).sum())
    )
    return found
