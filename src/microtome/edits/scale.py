"""Multiplication by a factor, at one address or layer by layer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, overload

from jaxtyping import Float
from torch import Tensor

from microtome.edits.base import Context, Edit, number, whole
from microtome.errors import EditError
from microtome.language.edges import Where
from microtome.spoken import spoken


@dataclass(frozen=True)
class Scale(Edit):
    """Every addressed value is multiplied by a factor: 1 changes nothing, 0 is `Zero`.

    >>> str(Scale("L2.resid_post", 0.6))
    'scale(0.6) L2.resid_post'
    """

    name: ClassVar[str] = "scale"
    on_edges: ClassVar[bool] = True

    factor: float

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "factor", number(self.factor, "scale's factor"))

    @property
    def keeps_zeros(self) -> bool:
        """A multiple of 0 is 0."""
        return True

    def change(
        self, values: Float[Tensor, " cell *region"], context: Context
    ) -> Float[Tensor, " cell *region"]:
        """The product."""
        return values * self.factor


@overload
def scale(where: Where | str, factor: float) -> Scale: ...
@overload
def scale(where: Mapping[int, float]) -> tuple[Scale, ...]: ...
@spoken
def scale(
    where: Where | str | Mapping[int, float], factor: float | None = None
) -> Scale | tuple[Scale, ...]:
    """`Scale` at an address; or, from a dictionary layer → factor, of the layers' hidden states.

    The dictionary gives one edit per layer, of ``resid_post`` at all positions, in the order of
    the layers. Together they make one cell, as a list of edits does; each has its own text form.

    Raises:
        EditError: the dictionary is empty, a layer is not a whole number, or a factor is missing
            or given twice.

    >>> [str(edit) for edit in scale({2: 0.6, 5: 0.9})]
    ['scale(0.6) L2.resid_post', 'scale(0.9) L5.resid_post']
    >>> str(scale("L2.resid_post@-1", 0.6))
    'scale(0.6) L2.resid_post@-1'
    """
    if not isinstance(where, Mapping):
        if factor is None:
            raise EditError(
                f"scale needs a factor, scale({str(where)!r}, 0.6), or a dictionary layer → "
                "factor, scale({2: 0.6, 5: 0.9})."
            )
        return Scale(where, factor)  # type: ignore[arg-type]
    if factor is not None:
        raise EditError("scale takes its factors from the dictionary: leave the other one out.")
    if not where:
        raise EditError("scale's dictionary layer → factor is empty: there is nothing to scale.")
    layers = {whole(layer, "A layer in scale's dictionary"): f for layer, f in where.items()}
    return tuple(Scale(f"L{layer}.resid_post", layers[layer]) for layer in sorted(layers))  # type: ignore[arg-type]
