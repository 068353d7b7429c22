"""The machine's own memory: how much of it is left."""

from __future__ import annotations

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import torch

MEMINFO = Path("/proc/meminfo")
LIMIT, USED, PARTS = (
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")
)
"""What a container may have, has, and of what that is."""
GIVEN_BACK = ("active_file", "inactive_file", "slab_reclaimable")
"""Of what a container has, what the kernel gives to whoever asks: files that were read, mostly."""


VM_STAT = ("/usr/bin/vm_stat",)
"""The command by which macOS tells of its pages."""
TO_BE_HAD = ("free", "speculative", "inactive")
"""Pages of macOS that whoever asks is given."""


def memory_left() -> int | None:
    """Bytes that can still be had without swapping; None where the system does not tell.

    What the kernel calls available; in a container no more than its own limit leaves.
    """
    available = SYSTEMS.get(sys.platform, lambda: None)
    found = [left for left in (available(), _of_container()) if left is not None]
    return min(found, default=None)


def device_left(device: torch.device) -> int | None:
    """Bytes that a device has left, its allocator's own free blocks among them; None: not known.

    What runs on the CPU, or shares its memory (``mps``), has the machine's.
    """
    if device.type in ("cpu", "mps"):
        return memory_left()
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(free) + unused


def _of_linux() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:  # no such file system is mounted
        return None
    told = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    kibibytes = next(told, None)
    return None if kibibytes is None else 1024 * int(kibibytes)


def _of_mac() -> int | None:
    try:
        done = subprocess.run(VM_STAT, capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    size = re.search(r"page size of (\d+) bytes", done.stdout)
    pages = dict(re.findall(r"^Pages (\w+): +(\d+)\.$", done.stdout, re.MULTILINE))
    if size is None or "free" not in pages:
        return None
    return int(size[1]) * sum(int(pages.get(kind, 0)) for kind in TO_BE_HAD)


class _Status(ctypes.Structure):
    """What Windows tells of its memory (MEMORYSTATUSEX)."""

    _fields_ = (
        ("length", ctypes.c_uint32),
        ("load", ctypes.c_uint32),
        *((name, ctypes.c_uint64) for name in ("total", "available", "page", "page_left")),
        *((name, ctypes.c_uint64) for name in ("virtual", "virtual_left", "extended_left")),
    )


def _of_windows() -> int | None:
    libraries = getattr(ctypes, "windll", None)
    if libraries is None:
        return None
    status = _Status(length=ctypes.sizeof(_Status))
    if not libraries.kernel32.GlobalMemoryStatusEx(ctypes.byref(status)):
        return None
    return int(status.available)


SYSTEMS: Mapping[str, Callable[[], int | None]] = MappingProxyType(
    {"linux": _of_linux, "darwin": _of_mac, "win32": _of_windows}
)
"""System → who tells what it has left."""


def _of_container() -> int | None:
    try:
        limit, used = LIMIT.read_text(encoding="ascii"), USED.read_text(encoding="ascii")
    except OSError:  # no container, or another system of them
        return None
    if limit.strip() == "max":
        return None
    return max(0, int(limit) - max(0, int(used) - _given_back()))


def _given_back() -> int:
    try:
        lines = PARTS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0
    parts = (line.partition(" ") for line in lines)
    return sum(int(size) for name, _, size in parts if name in GIVEN_BACK)
