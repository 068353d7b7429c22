"""Where a model's weights are: on one device, on several, offloaded, or packed.

Accelerate spreads a model (``device_map=…``): a module's weights may be on another device, or on
none until the module runs (they are "meta" then, and its hook fetches them). A quantised checkpoint
keeps packed weights. Either way a module computes what it should when it is called, so that is how
microtome uses one; its weights are read directly only where they are plain. All that knows of this
is here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from microtome.errors import MicrotomeError
from microtome.model.modules import parameters


def device_of(hf: PreTrainedModel) -> torch.device:
    """Where a model takes its tokens: its device; of a spread one, the first that computes."""
    spread = getattr(hf, "hf_device_map", None)
    if not spread:
        device: torch.device = hf.device
        return next(_fetching(hf), device) if device.type == "meta" else device
    computing = [place for place in spread.values() if str(place) not in ("cpu", "disk")]
    return torch.device(computing[0] if computing else "cpu")


def _fetching(hf: PreTrainedModel) -> Iterator[torch.device]:
    """Where hooks of accelerate's bring weights to: `cpu_offload` and its like leave no map."""
    for module in hf.modules():
        hook = vars(module).get("_hf_hook")
        for one in getattr(hook, "hooks", (hook,)):
            place = getattr(one, "execution_device", None)
            if place is not None:
                yield torch.device(place)


def is_plain(
    module: nn.Module, kind: type[nn.Module] = nn.Linear, besides: type | None = None
) -> bool:
    """Whether calling a linear layer is its matrix product and no more, where its weight lies.

    Neither packed nor offloaded, without a `forward` or hooks of its own: a cast, a scale. Hooks of
    the class ``besides`` do not count.
    """
    if type(module) is not kind or "_hf_hook" in vars(module) or "forward" in vars(module):
        return False
    hooks = (*module._forward_hooks.values(), *module._forward_pre_hooks.values())
    if any(besides is None or not isinstance(hook, besides) for hook in hooks):
        return False
    return type(module.weight) is nn.Parameter and not module.weight.is_meta


def types_of(modules: Iterable[nn.Module | None]) -> list[torch.dtype]:
    """The floating-point types of modules' own parameters, each once, in their order."""
    there = (module for module in modules if module is not None)
    kinds = [weight.dtype for module in there for weight in parameters(module)]
    return [kind for kind in dict.fromkeys(kinds) if kind.is_floating_point]


def why_no_copy(hf: PreTrainedModel) -> str | None:
    """Why a model cannot be copied into another type; None where it can."""
    if getattr(hf, "quantization_method", None) is not None:
        return "its weights are packed (quantised), which no cast unpacks"
    if any(hasattr(module, "_hf_hook") for module in hf.modules()):
        return "its weights are spread over devices or offloaded (device_map=), by hooks of its own"
    return None


def copy_in(hf: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """A copy of a model that can be copied, with its weights in a type, beside it in memory."""
    copied = copy.deepcopy(hf)
    # Not so buffers, which a model that is loaded in this type has as they are: rotary frequencies.
    for weight in copied.parameters():
        weight.data = weight.data.to(dtype)
    return copied


def weights(hf: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """All weights by name, in its order; offloaded ones fetched, packed ones as they are packed."""
    for name, weight in sorted(hf.state_dict().items()):
        path, _, own = name.rpartition(".")
        yield from parts(name, fetched(hf.get_submodule(path), own) if weight.is_meta else weight)


def fetched(module: nn.Module, own: str) -> Tensor:
    """A module's own tensor, from where it is offloaded if it is."""
    there: Tensor = getattr(module, own)
    if not there.is_meta:
        return there.detach()
    # Nobody else leaves meta tensors behind.
    from accelerate.utils import align_module_device  # type: ignore[import-not-found,unused-ignore]

    try:
        with align_module_device(module, "cpu"):
            weight: Tensor = getattr(module, own).detach().clone()
    except ValueError as error:
        raise MicrotomeError(
            f"{own} of a {type(module).__name__} is on the meta device, which holds shapes alone, "
            "and nothing is there to fetch it from. Load the model again."
        ) from error
    return weight


def parts(name: str, weight: Tensor) -> Iterator[tuple[str, Tensor]]:
    """A tensor, or the plain ones that a packed one is made of."""
    if not hasattr(weight, "__tensor_flatten__"):
        yield name, weight
        return
    for part in weight.__tensor_flatten__()[0]:
        yield from parts(f"{name}.{part}", getattr(weight, part))
