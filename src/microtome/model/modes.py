"""What torch is set to while a model runs, where that moves numbers: recorded, or refused."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from microtome.errors import MicrotomeError
from microtome.model.modules import named_modules
from microtome.model.whose import is_known, root

KERNELS = ("flash", "mem_efficient", "math", "cudnn")
"""Of attention, as torch names its switches."""


def refuse_autocast(device: torch.device) -> None:
    """Raise where torch would compute in another type than the model's.

    Autocast takes products in half precision and sums in float32, by the operation. A walk puts
    other operations in the place of the model's, so its numbers would be neither type's.

    Raises:
        MicrotomeError: autocast is on for this kind of device.
    """
    if torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type):
        kind = str(torch.get_autocast_dtype(device.type)).removeprefix("torch.")
        raise MicrotomeError(
            f"torch.autocast is on: products would be in {kind}, whatever type the model is "
            "recorded in. Leave the block (or disable it inside: torch.autocast("
            f"{device.type!r}, enabled=False)), and load the model in the type that you want: "
            f"load(…, dtype={kind!r})."
        )


def in_training(hf: nn.Module) -> str:
    """A sentence with what is in training mode and computes otherwise there; or nothing.

    A plain embedding or linear layer does not, and such a one is new, and in that mode, behind
    ``resize_token_embeddings``. A hook may ask for the mode: spectral norm's, or one for noise.
    """
    for name, part in named_modules(hf):
        if part.training and not _computes_alike(part):
            where = f" ({name})" if name else ""
            return (
                f"The model, or a part of it, is in training mode{where}, where dropout makes "
                "every pass different: call"
            )
    return ""


def _computes_alike(part: nn.Module) -> bool:
    """Whether a module's own code alone runs, besides our hooks, and knows no mode."""
    hooks = (*part._forward_pre_hooks.values(), *part._forward_hooks.values())
    return (
        type(part) in (nn.Embedding, nn.Linear)
        and is_known(vars(part).get("forward", nn.Linear))
        and all(root(type(hook).__module__) == "microtome" for hook in hooks)
    )


def modes() -> dict[str, str | int | bool]:
    """Threads, determinism, precision of products, and whether gradients are recorded."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        **_precision(),
        "onednn": bool(torch.backends.mkldnn.enabled),
        **_attention(),
        "inference_mode": torch.is_inference_mode_enabled(),
        "grad": torch.is_grad_enabled(),
        "autocast": False,  # else nothing runs
    }


def set_modes(wanted: Mapping[str, str | int | bool]) -> None:
    """Set torch as another process has it (`modes`), as far as that moves numbers for good.

    Whether gradients are recorded belongs to the thread that runs, and is left as it is.
    """
    torch.set_num_threads(int(wanted["threads"]))
    torch.use_deterministic_algorithms(bool(wanted["deterministic"]))
    torch.backends.cudnn.deterministic = bool(wanted["cudnn_deterministic"])
    torch.backends.cudnn.benchmark = bool(wanted["cudnn_benchmark"])
    torch.backends.mkldnn.set_flags(bool(wanted["onednn"]))  # type: ignore[no-untyped-call]
    off = str(wanted.get("sdpa_without", "")).split(",")
    for name in KERNELS:
        if _has(name) == (name in off):
            getattr(torch.backends.cuda, f"enable_{name}_sdp")(name not in off)
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if not hasattr(torch.backends, "fp32_precision"):
        torch.set_float32_matmul_precision(str(wanted["fp32_matmul"]))
        return
    parts = (matmul, getattr(cudnn, "conv", None), getattr(torch.backends.mkldnn, "matmul", None))
    for part, name in zip(parts, ("fp32_matmul", "fp32_conv", "fp32_onednn"), strict=True):
        # To set what is set already would choose between the old names and the new ones.
        if part is not None and name in wanted and part.fp32_precision != wanted[name]:
            part.fp32_precision = str(wanted[name])


def _attention() -> dict[str, str]:
    """Which kernels of attention are off, which on a CPU count too, where any is."""
    off = [name for name in KERNELS if not _has(name)]
    return {"sdpa_without": ",".join(off)} if off else {}


def _has(kernel: str) -> bool:
    """Whether torch may take a kernel of attention; one that it does not know yet is not off."""
    enabled = getattr(torch.backends.cuda, f"{kernel}_sdp_enabled", None)
    return enabled is None or bool(enabled())


def _precision() -> dict[str, str | bool]:
    """TF32 and its like. Newer releases refuse the old names once the new ones were used."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(torch.backends, "fp32_precision"):
        onednn = getattr(torch.backends.mkldnn, "matmul", None)
        on_cpu = "none" if onednn is None else str(onednn.fp32_precision)
        return {
            "fp32_matmul": str(matmul.fp32_precision),
            "fp32_conv": str(getattr(cudnn, "conv", matmul).fp32_precision),
            "tf32": str(matmul.fp32_precision) == "tf32",
            # Only where a CPU may round: sweeps that were begun before this was recorded go on.
            **({} if on_cpu in ("none", "ieee") else {"fp32_onednn": on_cpu}),
        }
    return {
        "fp32_matmul": torch.get_float32_matmul_precision(),
        "tf32": bool(matmul.allow_tf32),
    }
