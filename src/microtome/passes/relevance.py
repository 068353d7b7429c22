"""Passes that go back by the rules of layer-wise relevance propagation; forward they are the same.

What the model's own code calls is caught, in this thread and in this block alone (`_Rules`): the
root of a norm's variance, layer norms, softmax and fused attention. Activation functions are
modules, which are hooked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import ACT2CLS

from microtome.errors import MicrotomeError
from microtome.language.sites import site as find_site
from microtome.model.anatomy import Anatomy
from microtome.model.families.configs import unchanged
from microtome.passes.guests import Act, Side
from microtome.passes.hooks import Visit
from microtome.passes.modes import Mode
from microtome.passes.session import opened

ROOTS = (torch.rsqrt, Tensor.rsqrt)
"""What makes a norm's scale."""

SOFTMAX = (nn.functional.softmax, torch.softmax, Tensor.softmax)

ACTIVATIONS: tuple[type[nn.Module], ...] = tuple(
    {one[0] if isinstance(one, tuple) else one for one in ACT2CLS.values()}
)
"""The classes of activation functions that transformers knows."""

FUNCTIONS = (nn.functional.gelu, nn.functional.silu, nn.functional.relu)
"""What they call; a family's own code may call it by itself, as RoBERTa's head does."""


@contextmanager
def relevance(hf: PreTrainedModel, anatomy: Anatomy) -> Iterator[None]:
    """Within this block a pass can be gone back by the rules.

    Raises:
        MicrotomeError: no session on the model is open in this thread; or it computes something
            that no rule is known for.
    """
    _refuse_unruled(hf, anatomy)
    own = opened(hf)
    hooks: list[tuple[nn.Module, Side, Act]] = [
        (part, "output", _activated) for part in hf.modules() if isinstance(part, ACTIVATIONS)
    ]
    with own.within(_Rules()):
        own.hook(hooks)
        yield


def _refuse_unruled(hf: PreTrainedModel, anatomy: Anatomy) -> None:
    blocks = (anatomy.block(hf, layer) for layer in range(anatomy.dims.n_layers))
    plain = all(any(isinstance(part, ACTIVATIONS) for part in one.modules()) for one in blocks)
    why = ""
    if anatomy.dims.experts > 1:
        why = "its MLPs are mixtures of experts"
    elif anatomy.family.values is not unchanged:
        why = "it cuts its values off at a bound"
    elif not plain:
        why = "its activation function is none of transformers' own modules"
    if why:
        raise MicrotomeError(
            f"No rule of relevance is known for what {type(hf).__name__} computes: {why}. Take "
            "method='atp'."
        )


def halves(anatomy: Anatomy) -> Sequence[Visit]:
    """Visits that give each factor of a gated MLP's neurons half of what the product gets."""
    dims = anatomy.dims
    if dims.mlp_matrices < 3 or anatomy.family.down_proj is None:
        return ()

    def share(view: Tensor) -> None:
        view.copy_(view.detach() / 2 + view.clone() / 2)

    site = find_site("mlp_post")
    return [Visit((site, layer), share, writes=True) for layer in range(dims.n_layers)]


def _activated(_: nn.Module, args: tuple[Any, ...], output: Tensor) -> Tensor:
    return _linear(args[0], output)


def _linear(given: Tensor, output: Tensor) -> Tensor:
    """An activation function as its input times a constant: value by input."""
    times = torch.where(given == 0, torch.zeros_like(given), output / given).detach()
    return _as(output, given * times)


def _as(value: Tensor, way: Tensor) -> Tensor:
    """A value to the bit, with the way back of another that is equal but for rounding."""
    found: Tensor = way + (value - way).detach()
    return found


class _Rules(Mode):
    """The rules for what the model's code calls by name."""

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """As of a mode; by its rule, where there is one."""
        if func in ROOTS or func in SOFTMAX:
            return func(*args, **kwargs).detach()
        if func in FUNCTIONS:
            return _linear(args[0], func(*args, **kwargs))
        if func is nn.functional.layer_norm:
            return _layer_norm(func(*args, **kwargs), *args, **kwargs)
        if func is nn.functional.scaled_dot_product_attention:
            return _attended(func, *args, **kwargs)
        return func(*args, **kwargs)


def _layer_norm(
    normed: Tensor,
    x: Tensor,
    shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """A layer norm whose scale is a constant."""
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    scale = torch.rsqrt(centred.square().mean(axes, keepdim=True) + eps).detach()
    way = centred * scale
    way = way if weight is None else way * weight
    return _as(normed, way if bias is None else way + bias)


def _attended(func: Any, query: Tensor, key: Tensor, value: Tensor, *rest: Any, **more: Any) -> Any:
    """Fused attention whose weights are constants: it is linear in the values then."""
    return func(query.detach(), key.detach(), value, *rest, **more)
