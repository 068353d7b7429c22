"""The machine: a clock that waits for the device, its matrix rate, what it is called."""

from __future__ import annotations

import gc
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Machine:
    """Where the measurement runs: ``"cpu"`` or ``"cuda"``."""

    device: str

    def timed(self, work: Callable[[], Answer]) -> tuple[float, Answer]:
        """Seconds until the device is done, and what came out."""
        gc.collect()
        self.wait()
        began = time.perf_counter()
        answer = work()
        self.wait()
        return time.perf_counter() - began, answer

    def wait(self) -> None:
        """Until everything that was asked of the device is done."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)

    def matrix_rate(self, width: int) -> float:
        """Operations per second of a float32 product of an MLP's shape, with many rows."""
        rows = torch.randn(self.rows, width, device=self.device)
        wide = torch.randn(width, 4 * width, device=self.device)
        rows @ wide
        times = []
        for _ in range(9):
            self.wait()
            began = time.perf_counter()
            rows @ wide
            self.wait()
            times.append(time.perf_counter() - began)
        return 2 * self.rows * width * 4 * width / statistics.median(times)

    @property
    def rows(self) -> int:
        """Of the product that the rate is measured with: enough to keep the device busy."""
        return 8192 if self.device.startswith("cuda") else 720

    def describe(self) -> dict[str, Any]:
        """Its name and how much of it is used."""
        return {
            "device": self.device,
            "name": self.name(),
            "threads": torch.get_num_threads(),
            "matrix_rows": self.rows,
        }

    def name(self) -> str:
        """As the maker calls it."""
        if self.device.startswith("cuda"):
            return torch.cuda.get_device_name(self.device)
        listed = Path("/proc/cpuinfo")
        lines = listed.read_text().splitlines() if listed.exists() else []
        names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.processor() or platform.machine()
