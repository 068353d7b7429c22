"""The matrix of a linear module, whatever it is packed in."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from microtome.model.placement import is_plain

AT_ONCE = 64
"""Rows that go through a module at a time whose weights cannot be read by themselves."""


def matrix_of(module: nn.Module, width: int, like: Tensor, besides: type | None = None) -> Tensor:
    """What a linear module multiplies rows by, ``[width, out]``; without its bias.

    Args:
        module: the layer.
        width: of its input.
        like: of the device and the type of an input.
        besides: hooks of this class on it do not count.
    """
    if is_plain(module, nn.Linear, besides):
        return cast(Tensor, module.weight).T
    if is_plain(module, Conv1D, besides):
        return cast(Tensor, module.weight)
    # Packed, offloaded, adapted: whatever it computes is linear but for the bias.
    units = torch.eye(width, device=like.device, dtype=like.dtype)
    nothing = bias_of(module, width, like)
    return torch.cat([module(rows) - nothing for rows in torch.split(units, AT_ONCE)])


def bias_of(module: nn.Module, width: int, like: Tensor, besides: type | None = None) -> Tensor:
    """What a module gives for nothing, ``[out]``; arguments as of `matrix_of`."""
    if is_plain(module, nn.Linear, besides) or is_plain(module, Conv1D, besides):
        bias = cast(Tensor | None, module.bias)
        if bias is not None:
            return bias
        if isinstance(module, nn.Linear):  # not to run a whole unembedding for nothing
            return like.new_zeros(module.out_features)
    given: Tensor = module(torch.zeros(1, width, device=like.device, dtype=like.dtype))
    return given[0]
