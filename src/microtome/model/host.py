"""The machine's own memory: how much of it is left."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMIT, USED, PARTS = (
    Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")
)
"""What a container may have, has, and of what that is."""
GIVEN_BACK = ("active_file", "inactive_file", "slab_reclaimable")
"""Of what a container has, what the kernel gives to whoever asks: files that were read, mostly."""


def memory_left() -> int | None:
    """Bytes that can still be had without swapping; None where the system does not tell.

    What the kernel calls available; in a container no more than its own limit leaves.
    """
    found = [left for left in (_available(), _of_container()) if left is not None]
    return min(found, default=None)


def _available() -> int | None:
    try:
        lines = MEMINFO.read_text(encoding="ascii").splitlines()
    except OSError:  # not Linux
        return None
    told = (line.split()[1] for line in lines if line.startswith("MemAvailable:"))
    kibibytes = next(told, None)
    return None if kibibytes is None else 1024 * int(kibibytes)


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
