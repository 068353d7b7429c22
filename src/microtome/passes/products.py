"""Products with weights by oneDNN, which comes with torch, on a CPU in float32.

Torch gives such products to MKL, which lays all weights out anew in each call: some tens of tokens
take as long as if they were 32 more. oneDNN takes them as they lie. It is a third faster with so
few rows, a tenth with many; in half precision torch gives products to it by itself. The sums are
the same in another order: what this changes is rounding.

Where GPT-2's activation function reads what such a product gives, oneDNN makes it on the way, while
the neurons are at hand: by itself it takes a fifth of the product's time.

The operator is the one that torch's own compiler uses, and no public one: where it is missing, or
does not give what `linear` gives, products stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as globally
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation
from transformers.pytorch_utils import Conv1D

from microtome.errors import SweepError
from microtome.model.additions import is_known
from microtome.model.placement import device_of
from microtome.passes.guests import Act, Side
from microtome.passes.modes import Mode
from microtome.passes.session import Session, opened

ROWS = 4
"""Fewer are no faster."""

WEIGHTS = 2**18
"""To call it takes longer than what it is faster by where a matrix has fewer."""

CLOSE = 1e-5
"""How far it may be from `linear` on numbers of about 1."""

ACTIVATED: Mapping[str, tuple[str, str]] = {
    "GPT2MLP": ("c_fc", "act"),
    "GPTNeoMLP": ("c_fc", "act"),
    "GPTJMLP": ("fc_in", "act"),
    "PhiMLP": ("fc1", "activation_fn"),
}
"""Transformers' MLPs, with the projection whose output nobody but the activation function reads."""

Product = Callable[[Tensor, Tensor, Tensor | None, bool], Tensor]
"""Of rows ``[…, in]``, weights ``[out, in]``, a bias: ``[…, out]``; activated, or as it is."""

_gelu = partial(nn.functional.gelu, approximate="tanh")


@contextmanager
def by_onednn(hf: PreTrainedModel) -> Iterator[None]:
    """Within this block, products with a model's weights are taken by oneDNN where that is faster.

    Activation functions too, where they run as one operator (`in_one_pass`).

    Raises:
        MicrotomeError: no session on the model is open in this thread.
        SweepError: what was activated on the way was given to nobody as such.
    """
    own, product = opened(hf), None
    if torch.backends.mkldnn.enabled and device_of(hf).type == "cpu" and _has_large(own):
        product = onednn()
    if product is None:
        yield
        return
    mode = _Products(own, product)
    with own.within(mode):
        own.hook(mode.hooks(hf))
        yield
        mode.refuse_unread()


@cache
def onednn() -> Product | None:
    """The operator, once it has been seen to give what `linear` gives; None where there is none."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None

    def product(x: Tensor, weight: Tensor, bias: Tensor | None, activated: bool) -> Tensor:
        name, kind = ("gelu", "tanh") if activated else ("none", "")
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, name, [], kind)
        return found

    x, weight = torch.eye(4 * ROWS), torch.linspace(-4, 4, 12 * ROWS).view(-1, 4 * ROWS)
    bias = weight[:, 0].clone()
    turned = weight.T.contiguous().T
    try:
        found = [
            product(x, weight, bias, False),
            product(x, turned, None, False),
            product(x, turned, bias, True),
        ]
    except (AttributeError, RuntimeError):  # another torch: it is no public operator
        return None
    wanted = [weight.T + bias, weight.T, _gelu(weight.T + bias)]
    right = all(torch.allclose(*pair, atol=CLOSE) for pair in zip(found, wanted, strict=True))
    return product if right else None


class _Products(Mode):
    """Takes products with weights, in the thread and the time of a session.

    Attributes:
        next: the weights whose product is to be activated on the way, where they are the next.
        made: what was, until the activation function asks for it.
    """

    def __init__(self, own: Session, product: Product) -> None:
        super().__init__()
        self.session, self.product = own, product
        self.next: Tensor | None = None
        self.made: Tensor | None = None

    def see(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """What a function of torch gives."""
        if func is nn.functional.linear and not kwargs:
            x, weight, bias = (*args, None)[:3]
        elif func is torch.addmm and not kwargs:  # `Conv1D` has its weights the other way round
            bias, x, weight = args
        elif func is nn.functional.gelu and self._has_made(args[0]):
            self.made = None
            return args[0]
        else:
            return func(*args, **kwargs)
        activated, self.next = weight is self.next, None
        if not self.session.is_here or not _pays(x, weight, bias):
            return func(*args)
        found = self.product(x, weight.T if func is torch.addmm else weight, bias, activated)
        if activated:
            self.made = found
        return found

    def hooks(self, hf: PreTrainedModel) -> Iterator[tuple[nn.Module, Side, Act]]:
        """Those that tell of the projections before activation functions."""
        for mlp in hf.modules():
            names = ACTIVATED.get(type(mlp).__name__) if is_known(type(mlp)) else None
            if names is not None:
                up, act = map(mlp.get_submodule, names)
                if type(act) is NewGELUActivation and type(up) in (nn.Linear, Conv1D):
                    yield up, "input", partial(self._expect, act)

    def refuse_unread(self) -> None:
        """Raise `SweepError` where what was activated on the way was not given to be activated."""
        if self.made is not None:
            raise SweepError(
                "What an MLP's first projection gave was not activated as it was: this model does "
                "not run its MLPs as its family does. Use engine='reference'."
            )

    def _expect(self, act: nn.Module, up: nn.Linear | Conv1D, *_: object) -> None:
        self.refuse_unread()
        if not _is_seen(up, act):
            self.next = up.weight

    def _has_made(self, x: Tensor) -> bool:
        made = self.made
        return made is not None and made.data_ptr() == x.data_ptr() and made.numel() == x.numel()


def _has_large(own: Session) -> bool:
    """Whether a model may have products that are taken: a mode sees each of torch's functions."""
    dims = own.anatomy.dims
    return dims.d_model * max(dims.d_mlp, 3 * dims.n_heads * dims.d_head) >= WEIGHTS


def _is_seen(up: nn.Module, act: nn.Module) -> bool:
    """Whether somebody looks between the two; the function has the hooks of `in_one_pass` alone."""
    ours = len(act._forward_pre_hooks) == len(act._forward_hooks) == 1
    every = globally._global_forward_hooks or globally._global_forward_pre_hooks
    return bool(not ours or up._forward_hooks or every)


def _pays(x: Tensor, weight: Tensor, bias: Tensor | None) -> bool:
    """Whether it is faster: where all of it is plain, in float32 on a CPU, and not small."""
    given = [x, weight] if bias is None else [x, weight, bias]
    if any(one.dtype != torch.float32 or one.device.type != "cpu" for one in given):
        return False
    plain = type(weight) in (Tensor, nn.Parameter) and weight.ndim == 2
    plain = plain and (bias is None or bias.ndim == 1)
    # It takes no notice of how a bias lies.
    plain = plain and all(one.is_contiguous() for one in given)
    return plain and weight.numel() >= WEIGHTS and x.numel() >= ROWS * x.shape[-1]
