"""A pass whose values are rounded otherwise: how far what it gives moves by that alone.

Two ways to compute one thing round otherwise, and what that does to logits is the model's matter:
in some texts, or under some edits, a last bit early on is heard as loudly as an edit. So it is
tried. Behind every block each value moves by less than half a unit of rounding, at random, to one
of its two neighbours or to neither, as the rounding of another way might have it.

A family whose own code multiplies queries with keys in float32, whatever the model's type, rounds
most there: scores are large, and a softmax hears how far they are off, not what share of them that
is. Its queries and keys move as well, but in half precision, of which these products are no part.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from microtome.language.sites import site
from microtome.model.anatomy import Anatomy
from microtome.passes.visits import Visit


def shaking(anatomy: Anatomy, eps: float, seed: int) -> list[Visit]:
    """Visits that round the output of every block anew, and what is multiplied in float32.

    Args:
        anatomy: of the model.
        eps: the unit of rounding of what is computed in.
        seed: of what is drawn.
    """
    drawn = torch.Generator().manual_seed(seed)
    dims, by = anatomy.dims, {"resid_post": eps}
    if anatomy.family.inner == "attention" and eps <= torch.finfo(torch.float32).eps:
        # A sum of so many terms is rounded as often.
        by |= dict.fromkeys(("q", "k"), eps * math.sqrt(dims.d_head))
    return [
        Visit((site(name), layer), partial(_shake, drawn, width), writes=True)
        for layer in range(dims.n_layers)
        for name, width in by.items()
    ]


def _shake(drawn: torch.Generator, width: float, view: Tensor) -> None:
    # Drawn where the generator is, whatever devices the layers are on: everywhere the same.
    by = (torch.rand(view.shape, generator=drawn, dtype=torch.float32) - 0.5) * width
    wide = torch.promote_types(view.dtype, torch.float32)
    view.copy_(view.to(wide) * (1 + by.to(view.device, wide)))
