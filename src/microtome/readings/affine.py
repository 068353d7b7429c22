"""Norms and activations as they were for one vector: affine, with their scale left as it was.

A norm divides by a number that depends on the whole of what it reads, so a sum does not go through
it term by term. With that number held at what it was it does: each coordinate is multiplied by
what the norm multiplied it by, after the mean is taken out where it takes one out. An activation is
held likewise. This is the usual "frozen layer norm" of direct logit attribution (Elhage et al., "A
mathematical framework for transformer circuits", 2021), of any norm that multiplies coordinates.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from microtome.errors import ArchitectureError
from microtome.model.matrices import bias_of, matrix_of

Step = nn.Module | Callable[[Tensor], Tensor]

SMALL = 1e-3
"""A coordinate below this share of the usual one is not divided by."""
EQUAL = 1e-6


@dataclass(frozen=True, eq=False)
class Scaled:
    """Coordinates times a number each, after their mean is taken out where ``centred``; a bias."""

    scale: Float[Tensor, " d"]
    bias: Float[Tensor, " d"]
    centred: bool

    def push(self, parts: Float[Tensor, "*n d"]) -> Float[Tensor, "*n d"]:
        """What becomes of parts of the input, without the bias."""
        return _centred(parts, self.centred) * self.scale

    def pull(self, direction: Float[Tensor, " d"]) -> Float[Tensor, " d"]:
        """The direction in the input that reads what this one reads in the output."""
        return _centred(direction * self.scale, self.centred)


@dataclass(frozen=True, eq=False)
class Product:
    """A matrix product, with a bias."""

    matrix: Float[Tensor, "d out"]
    bias: Float[Tensor, " out"]

    def push(self, parts: Float[Tensor, "*n d"]) -> Float[Tensor, "*n out"]:
        """As `Scaled.push`."""
        return parts @ self.matrix

    def pull(self, direction: Float[Tensor, " out"]) -> Float[Tensor, " d"]:
        """As `Scaled.pull`."""
        return self.matrix @ direction


Affine = Scaled | Product


def affine(step: Step, x: Float[Tensor, " d"]) -> tuple[Affine, ...]:
    """A step of a model as it was for one vector, in float64.

    Args:
        step: a norm, an activation, a linear layer, or a module that is some of these in a row.
        x: what it read, in the model's own type.

    Raises:
        ArchitectureError: it is something else.
    """
    adapted = _adapted(step)
    if isinstance(adapted, nn.Linear | Conv1D):
        assert isinstance(step, nn.Module), "what holds a layer is one"
        matrix = matrix_of(step, len(x), x).double()
        return (Product(matrix, bias_of(step, len(x), x).double()),)
    inner = [*adapted.children()] if isinstance(adapted, nn.Module) else []
    if inner:
        return _in_a_row(step, inner, x)
    return (_scaled(step, x),)


def pulled(
    maps: Sequence[Affine], direction: Float[Tensor, " d"]
) -> tuple[Float[Tensor, " d"], float]:
    """A direction behind some maps as one in front of them; and what their biases give it."""
    bias = 0.0
    for one in reversed(maps):
        bias += float(one.bias @ direction)
        direction = one.pull(direction)
    return direction, bias


def pushed(maps: Sequence[Affine], parts: Float[Tensor, "*n d"]) -> Float[Tensor, "*n out"]:
    """Parts in front of some maps as what becomes of them behind."""
    for one in maps:
        parts = one.push(parts)
    return parts


def _adapted(step: Step) -> Step:
    """What an adapter adapts: the first of its modules, beside tables of which none can be called.

    Of a layer it makes another layer, and of a norm another norm.
    """
    inner = [*step.children()] if isinstance(step, nn.Module) else []
    return _adapted(inner[0]) if any(map(_is_table, inner[1:])) else step


def _is_table(module: nn.Module) -> bool:
    return type(module).forward is nn.Module.forward


def _in_a_row(whole: Step, inner: Sequence[nn.Module], x: Tensor) -> tuple[Affine, ...]:
    found: list[Affine] = []
    own = x
    for step in inner:
        found += affine(step, own)
        own = _of(step, own)
    if not torch.allclose(own.double(), _of(whole, x).double(), atol=EQUAL, rtol=EQUAL):
        raise ArchitectureError(
            f"A {type(whole).__name__} stands before the unembedding, and it is no row of linear "
            "layers, activations and norms: what each part adds to a logit cannot be told."
        )
    return tuple(found)


def _scaled(step: Step, x: Float[Tensor, " d"]) -> Scaled:
    bias = _of(step, torch.zeros_like(x)).double()
    flat = (_of(step, torch.ones_like(x)).double() - bias).abs().max()
    ramp = torch.linspace(-1, 1, len(x), dtype=x.dtype, device=x.device)
    centred = bool(flat <= EQUAL * (_of(step, ramp).double() - bias).abs().max())
    own = _centred(x.double(), centred)
    small = SMALL * own.square().mean().sqrt()
    tiny = own.abs() <= small
    scale = (_of(step, x).double() - bias) / own.where(~tiny, 1.0)
    if bool(tiny.any()):  # of these, that of one a little larger, among the same others
        moved = torch.where(tiny, x.double() + 2 * small, x.double()).to(x.dtype)
        there = _centred(moved.double(), centred)
        near = (_of(step, moved).double() - bias) / there.where(there.abs() > small / 2, 1.0)
        scale = torch.where(tiny, near, scale)
    return Scaled(scale, bias, centred)


def _of(step: Step, x: Float[Tensor, " d"]) -> Float[Tensor, " out"]:
    given: Tensor = step(x[None, None])
    return given[0, 0]


def _centred(x: Tensor, centred: bool) -> Tensor:
    return x - x.mean(-1, keepdim=True) if centred else x
