"""What torch is set to while a model runs, where that moves numbers: recorded, or refused."""

from __future__ import annotations

import torch

from microtome.errors import MicrotomeError


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


def modes() -> dict[str, str | int | bool]:
    """Threads, determinism, precision of products, and whether gradients are recorded."""
    return {
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "cudnn_deterministic": torch.backends.cudnn.deterministic,
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        **_precision(),
        "inference_mode": torch.is_inference_mode_enabled(),
        "grad": torch.is_grad_enabled(),
        "autocast": False,  # else nothing runs
    }


def _precision() -> dict[str, str | bool]:
    """TF32 and its like. Newer releases refuse the old names once the new ones were used."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    if hasattr(torch.backends, "fp32_precision"):
        return {
            "fp32_matmul": str(matmul.fp32_precision),
            "fp32_conv": str(getattr(cudnn, "conv", matmul).fp32_precision),
            "tf32": str(matmul.fp32_precision) == "tf32",
        }
    return {
        "fp32_matmul": torch.get_float32_matmul_precision(),
        "tf32": bool(matmul.allow_tf32),
    }
