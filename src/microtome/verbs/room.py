"""Whether what a reading keeps fits into the machine, asked before it runs."""

from __future__ import annotations

import torch

from microtome.errors import MicrotomeError
from microtome.model.host import device_left

HOST = torch.device("cpu")

NUMBER = 4
"""Bytes of a number that is kept, in float32."""


def check_room(needed: int, what: str, instead: str, device: torch.device = HOST) -> None:
    """Raise where what is kept would take more than the machine, or a device, has left.

    Args:
        needed: bytes.
        what: it is, in words.
        instead: what to ask for.
        device: where it is kept.

    Raises:
        MicrotomeError: so it would.
    """
    left = device_left(device)
    if left is not None and needed > left:
        whose = f"the device {device}" if device.type == "cuda" else "the machine"
        raise MicrotomeError(
            f"{what} would take {needed / 2**20:,.0f} MiB, and {whose} has "
            f"{left / 2**20:,.0f} MiB left: {instead}."
        )
