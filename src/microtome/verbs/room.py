"""Whether what a reading keeps fits into the machine, asked before it runs."""

from __future__ import annotations

from microtome.errors import MicrotomeError
from microtome.model.host import memory_left

NUMBER = 4
"""Bytes of a number that is kept, in float32."""


def check_room(needed: int, what: str, instead: str) -> None:
    """Raise where what is kept would take more than the machine has left, and end the program.

    Args:
        needed: bytes.
        what: it is, in words.
        instead: what to ask for.

    Raises:
        MicrotomeError: so it would.
    """
    left = memory_left()
    if left is not None and needed > left:
        raise MicrotomeError(
            f"{what} would take {needed / 2**20:,.0f} MiB, and the machine has "
            f"{left / 2**20:,.0f} MiB left: {instead}."
        )
