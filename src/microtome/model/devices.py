"""Numbers of the host on a device, without waiting for it.

A plain copy from the host's memory to an accelerator waits until everything that was asked of the
device is done, since the memory might be changed meanwhile. From pinned memory it need not. In the
other direction, and wherever a shape depends on values, nothing helps but not to ask: results leave
the device once per batch (`Collector.settle`).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor


def onto(device: torch.device, values: np.ndarray[Any, Any] | Tensor) -> Tensor:
    """Values of the host on a device; they must not be changed afterwards.

    >>> onto(torch.device("cpu"), np.arange(3))
    tensor([0, 1, 2])
    """
    tensor = values if isinstance(values, Tensor) else torch.from_numpy(values)
    if device.type == "cuda":
        tensor = tensor.pin_memory()
    return tensor.to(device, non_blocking=True)


def numbers(device: torch.device, chosen: Sequence[int]) -> Tensor:
    """Whole numbers on a device, such as positions; the same ones are brought there once.

    >>> numbers(torch.device("cpu"), [2, 0])
    tensor([2, 0])
    """
    return _numbers(device, tuple(chosen))


@lru_cache(maxsize=4096)
def _numbers(device: torch.device, chosen: tuple[int, ...]) -> Tensor:
    with torch.inference_mode(False):  # else whoever needs gradients later could not use them
        return onto(device, np.array(chosen, dtype=np.int64))
