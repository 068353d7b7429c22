"""Models whose gradients are exact enough: in float32 at least."""

from __future__ import annotations

from dataclasses import replace

import torch

from microtome.errors import SweepError
from microtome.model.loaded import Loaded
from microtome.model.placement import copy_in, why_no_copy

ENOUGH = (torch.float32, torch.float64)


def widened(model: Loaded) -> Loaded:
    """A model as it is, or a copy in float32 of one in half precision, beside it in memory.

    A gradient is a sum over all that comes behind, of which half precision keeps two digits.

    Raises:
        SweepError: it cannot be copied.
    """
    if model.dtype in ENOUGH:
        return model
    why = why_no_copy(model.hf)
    if why is not None:
        raise SweepError(
            f"Gradients are taken in float32, on a copy of a model in {model.dtype}, and this one "
            f"cannot be copied: {why}. Load it in float32, or take method='exact'."
        )
    return replace(model, hf=copy_in(model.hf, torch.float32))
