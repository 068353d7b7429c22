"""A pass whose residual stream is rounded otherwise: how far what it gives moves by that alone.

In half precision two ways to compute one thing round otherwise, and what that does to logits is the
model's matter: in some texts, or under some edits, a last bit early on is heard as loudly as an
edit. So it is tried. Behind every block each value moves by less than half a unit of rounding, at
random, to one of its two neighbours or to neither, as the rounding of another way might have it.
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor

from microtome.language.sites import site
from microtome.model.anatomy import Anatomy
from microtome.passes.visits import Visit


def shaking(anatomy: Anatomy, eps: float, seed: int) -> list[Visit]:
    """Visits that round the output of every block anew.

    Args:
        anatomy: of the model.
        eps: the unit of rounding of its stream.
        seed: of what is drawn.
    """
    drawn = torch.Generator().manual_seed(seed)
    act = partial(_shake, drawn, eps)
    place = site("resid_post")
    return [Visit((place, layer), act, writes=True) for layer in range(anatomy.dims.n_layers)]


def _shake(drawn: torch.Generator, eps: float, view: Tensor) -> None:
    # Drawn where the generator is, whatever devices the layers are on: everywhere the same.
    by = (torch.rand(view.shape, generator=drawn, dtype=torch.float32) - 0.5) * eps
    view.copy_(view.float() * (1 + by.to(view.device)))
