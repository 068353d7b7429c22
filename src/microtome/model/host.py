"""The machine's own memory: how much of it is left."""

from __future__ import annotations

from pathlib import Path

MEMINFO = Path("/proc/meminfo")
LIMIT, USED = (Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current"))
"""What a container may have, and has."""


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
    return None if limit.strip() == "max" else max(0, int(limit) - int(used))
