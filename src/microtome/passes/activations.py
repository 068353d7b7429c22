"""Activation functions that transformers writes out operator by operator, in one pass over memory.

GPT-2's, of GPT-J, Phi and others too, is seven operators, each of which reads and writes all
neurons: torch has the same function as one. What this changes is rounding. In half precision that
would be another rounding than the model's own, so there the module does as it always does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as globally
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from microtome.model.modules import modules
from microtome.passes.guests import Act, Side
from microtome.passes.session import opened

IN_ONE: Mapping[type[nn.Module], Callable[[Tensor], Tensor]] = {
    NewGELUActivation: partial(nn.functional.gelu, approximate="tanh"),
}
"""A module → the same function as one operator."""

KINDS = (torch.float32, torch.float64)
"""Types in which it is taken."""


@contextmanager
def in_one_pass(hf: PreTrainedModel) -> Iterator[None]:
    """Within this block, such modules of a model run as one operator.

    Raises:
        MicrotomeError: no session on the model is open in this thread.
    """
    hooks = [hook for module in modules(hf) if type(module) in IN_ONE for hook in _instead(module)]
    own = opened(hf)
    with own.block():
        own.hook(hooks)
        yield


def _instead(module: nn.Module) -> Iterator[tuple[nn.Module, Side, Act]]:
    """The hooks that give a module nothing to do, and do it.

    One that somebody watches does it all the same: what is seen there is what the module makes.
    """
    given: list[Tensor] = []
    watched = bool(module._forward_hooks or globally._global_forward_hooks)

    def take(_: nn.Module, args: tuple[Tensor], kwargs: dict[str, Any]) -> Any:
        given[:] = args
        whole = watched or args[0].dtype not in KINDS
        return (args[0] if whole else args[0][:0],), kwargs

    def put(module: nn.Module, _: tuple[Tensor], output: Tensor) -> Tensor:
        x = given.pop()
        return IN_ONE[type(module)](x) if x.dtype in KINDS else output

    yield module, "input", take
    yield module, "output", put
