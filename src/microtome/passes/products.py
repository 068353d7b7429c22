"""Products with weights by oneDNN, which comes with torch, on a CPU in float32.

Torch gives such products to MKL, which lays all weights out anew in each call: some tens of tokens
take as long as if they were 32 more. oneDNN takes them as they lie. It is up to twice as fast with
so few rows, and a tenth faster with many; in half precision torch gives products to it by itself.
The sums are the same in another order: what this changes is rounding.

The operator is the one that torch's own compiler uses, and no public one: where it is missing, or
does not give what `linear` gives, products stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode, _get_current_function_mode_stack
from transformers import PreTrainedModel

from microtome.model.placement import device_of
from microtome.passes.session import Session, opened

ROWS = 8
"""Fewer are no faster."""

WEIGHTS = 2**16
"""To call it takes longer than with fewer of them the product does."""

CLOSE = 1e-5
"""How far it may be from `linear` on numbers of about 1."""

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""Of rows ``[…, in]``, weights ``[out, in]`` and a bias ``[out]``: ``[…, out]``."""


@contextmanager
def by_onednn(hf: PreTrainedModel) -> Iterator[None]:
    """Within this block, products with a model's weights are taken by oneDNN where that is faster.

    Raises:
        MicrotomeError: no session on the model is open in this thread.
    """
    own, product = opened(hf), None
    if torch.backends.mkldnn.enabled and device_of(hf).type == "cpu":
        product = _product()
    with own.block():
        if product is not None:
            mode = _Products(own, product)
            own.at_end(mode.close)
            mode.open()
        yield


@cache
def _product() -> Product | None:
    """The operator, once it has been seen to give what `linear` gives; None where there is none."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return None

    def product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        found: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return found

    x, weight = torch.eye(2 * ROWS), torch.linspace(-1, 1, 6 * ROWS).view(-1, 2 * ROWS)
    bias = weight[:, 0].clone()
    try:
        found = [product(x, weight, bias), product(x, weight.T.contiguous().T, None)]
    except (AttributeError, RuntimeError):  # another torch: it is no public operator
        return None
    wanted = [weight.T + bias, weight.T]
    right = all(torch.allclose(*pair, atol=CLOSE) for pair in zip(found, wanted, strict=True))
    return product if right else None


class _Products(TorchFunctionMode):
    """Takes products with weights. It is of one thread, and does nothing once it was closed."""

    def __init__(self, own: Session, product: Product) -> None:
        super().__init__()
        self.session, self.product = own, product
        self.is_open = False

    def open(self) -> None:
        """Begin."""
        self.is_open = True
        self.__enter__()  # type: ignore[no-untyped-call]

    def close(self) -> None:
        """End; once more does no harm, nor where an interrupt came before it had begun."""
        self.is_open = False
        there = _get_current_function_mode_stack()  # type: ignore[no-untyped-call]
        if any(mode is self for mode in there):
            self.__exit__(None, None, None)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        if not kwargs and self.is_open and self.session.is_here:
            if func is nn.functional.linear:
                x, weight, bias = (*args, None)[:3]
                if _pays(x, weight, bias):
                    return self.product(x, weight, bias)
            elif func is torch.addmm:  # transformers' `Conv1D` has its weights the other way round
                bias, x, weight = args
                if _pays(x, weight, bias):
                    return self.product(x, weight.T, bias)
        return func(*args, **(kwargs or {}))


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
