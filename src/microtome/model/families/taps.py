"""Where sites live: a module's input, output or weights, and the part of that tensor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from microtome.language.sites import Dimensions

View = Callable[[Tensor, Dimensions], Tensor]
"""Picks a site's values out of a module's tensor, as a view: writing to it writes to the tensor."""

Put = Callable[[Tensor, Tensor, Dimensions], None]
"""Writes a site's values into a module's tensor, where no view can."""


def whole(x: Tensor, dims: Dimensions) -> Tensor:
    """``[batch, pos, d]``, as it is."""
    return x


@dataclass(frozen=True)
class Tap:
    """Where a site lives: a module's input, output or attention weights, and the part of that.

    ``module`` is a path from the root, with ``{layer}`` for the block's number; "" is the root.
    ``in_place`` marks a tensor that the block goes on using besides the module that it is tapped
    at (the residual stream in front of a norm): an edit must write into it, not replace it.
    ``flat`` marks a tensor of which the block has made one axis of batch and positions. ``put`` is
    needed where ``view`` gives a copy.
    """

    module: str
    side: Literal["input", "output", "weights"]
    view: View = whole
    in_place: bool = False
    flat: bool = False
    put: Put | None = None


def heads(x: Tensor, dims: Dimensions) -> Tensor:
    """``[batch, pos, n_heads * d_head]`` → ``[batch, pos, head, d_head]``."""
    return x.view(*x.shape[:-1], dims.n_heads, dims.d_head)


def kv_heads(x: Tensor, dims: Dimensions) -> Tensor:
    """``[batch, pos, n_kv_heads * d_head]`` → ``[batch, pos, kv_head, d_head]``."""
    return x.view(*x.shape[:-1], dims.n_kv_heads, dims.d_head)


def stacked(part: Literal["q", "k", "v"]) -> View:
    """One of q, k, v, laid side by side, each whole: ``[q of all heads, k of all, v of all]``."""

    def view(x: Tensor, dims: Dimensions) -> Tensor:
        queries, keys = dims.n_heads * dims.d_head, dims.n_kv_heads * dims.d_head
        match part:
            case "q":
                return heads(x.narrow(-1, 0, queries), dims)
            case "k":
                return kv_heads(x.narrow(-1, queries, keys), dims)
            case "v":
                return kv_heads(x.narrow(-1, queries + keys, keys), dims)

    return view


def interleaved(part: Literal["q", "k", "v"]) -> View:
    """One of q, k, v, laid side by side head by head: ``[q k v of head 0, q k v of head 1, …]``."""

    def view(x: Tensor, dims: Dimensions) -> Tensor:
        each = x.view(*x.shape[:-1], dims.n_heads, 3, dims.d_head)
        return each[..., "qkv".index(part), :]

    return view


def grouped(part: Literal["q", "k", "v"]) -> View:
    """One of q, k, v, laid side by side group by group: the group's queries, its key, its value."""

    def view(x: Tensor, dims: Dimensions) -> Tensor:
        groups = _groups(x, dims)
        match part:
            case "q":
                return groups[..., :-2, :].flatten(-3, -2)
            case "k":
                return groups[..., -2, :]
            case "v":
                return groups[..., -1, :]

    return view


def put_grouped(x: Tensor, values: Tensor, dims: Dimensions) -> None:
    """Queries ``[batch, pos, head, d_head]`` back to their groups."""
    queries = _groups(x, dims)[..., :-2, :]
    given = values.reshape(queries.shape)
    if given.data_ptr() != queries.data_ptr():  # of one group and token they are a view: it is done
        queries.copy_(given)


def _groups(x: Tensor, dims: Dimensions) -> Tensor:
    group = dims.n_heads // dims.n_kv_heads
    return x.view(*x.shape[:-1], dims.n_kv_heads, group + 2, dims.d_head)


def times(factor: float) -> View:
    """What a module gives, as the block adds it: times a number."""
    return lambda x, dims: x * factor


def put_times(factor: float) -> Put:
    """The inverse of `times`; values that were left alone keep every bit, and their gradients."""

    def put(x: Tensor, values: Tensor, dims: Dimensions) -> None:
        same = x + (values - x * factor) / factor if values.requires_grad else x
        x.copy_((values / factor).where(values != x * factor, same))

    return put


def split(q: str, k: str, v: str) -> Mapping[str, Tap]:
    """Queries, keys and values from three projections."""
    return {
        "q": Tap(q, "output", heads),
        "k": Tap(k, "output", kv_heads),
        "v": Tap(v, "output", kv_heads),
    }


def fused(module: str, view: Callable[[Any], View]) -> Mapping[str, Tap]:
    """Queries, keys and values from one projection, in some order."""
    return {part: Tap(module, "output", view(part)) for part in ("q", "k", "v")}
