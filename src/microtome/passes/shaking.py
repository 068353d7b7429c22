"""A pass whose values are rounded otherwise: how far what it gives moves by that alone.

Two ways to compute one thing round otherwise, and what that does to logits is the model's matter:
in some texts, or under some edits, a last bit early on is heard as loudly as an edit. So it is
tried. Behind every block each value moves by less than half a unit of rounding, at random, to one
of its two neighbours or to neither, as the rounding of another way might have it.

Where queries are multiplied with keys in float32 or better, what that rounds is heard most: scores
may be large, and a softmax hears how far they are off, not what share of them that is. So queries
and keys move as well, but in half precision, of which these products are no part.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from microtome.model.anatomy import Anatomy
from microtome.passes.visits import Visit


def shaking(anatomy: Anatomy, eps: float, seed: int) -> list[Visit]:
    """Visits that round the output of every block anew, and what is multiplied in attention.

    Args:
        anatomy: of the model.
        eps: the unit of rounding of what is computed in.
        seed: of what is drawn.
    """
    drawn = torch.Generator().manual_seed(seed)
    widths = {"resid_post": eps}
    if eps <= torch.finfo(torch.float32).eps:  # a sum of so many terms is rounded as often
        widths |= dict.fromkeys(("q", "k"), eps * math.sqrt(anatomy.dims.d_head))
    return [
        Visit(place, partial(_shake, drawn, widths[place[0].name]), writes=True)
        for place in anatomy.places()
        if place[0].name in widths
    ]


def _shake(drawn: torch.Generator, width: float, view: Tensor) -> None:
    # Drawn where the generator is, whatever devices the layers are on: everywhere the same.
    by = (torch.rand(view.shape, generator=drawn, dtype=torch.float32) - 0.5) * width
    wide = torch.promote_types(view.dtype, torch.float32)
    view.copy_(view.to(wide) * (1 + by.to(view.device, wide)))
