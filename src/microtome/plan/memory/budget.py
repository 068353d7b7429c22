"""What a sweep may use of the machine."""

from __future__ import annotations

from dataclasses import dataclass

DEFAULT_MEMORY = 2 * 2**30
"""Bytes for a sweep besides the model, unless ``memory=`` says otherwise."""


TILES = {"cpu": 512, "cuda": 16384}
"""Device → tokens that a block is run on at a time.

On a CPU more do not make matrix products any faster, and what a block computes in between no longer
fits into the caches. An accelerator wants many.
"""


LEAST = 6
"""Rows of a pass, however long the prompts are, if memory allows: what a sweep verifies usually."""


READING = {"cpu": 32, "cuda": 1024}
"""Device → tokens that a block could be run on in the time that reading its weights takes.

A product of n rows takes as long as n + 32 do at the full rate: measured on two CPU cores, at
widths from 768 to 1280. On an accelerator it is a guess: most of it is the block's own launch.
"""


BESIDE = {"cpu": 12, "cuda": 256}
"""Device → the same for a batch that goes through the block beside others: its own attention.

Measured like the other, by the map of hidden states; on an accelerator it is a guess too.
"""


@dataclass(frozen=True)
class Budget:
    """What a sweep may use of the machine.

    Attributes:
        memory: bytes besides the model.
        tile: tokens that a block is run on at a time.
        itemsize: bytes of one activation.
        reading: what a block costs besides its tokens, in tokens.
        beside: the same, where other batches go through the block with it.
        verified: how many cells of a unit are computed again on the reference path.
        host: bytes that the machine has left; None: not known.
        shared: activations are in the machine's own memory, beside the results.
        copied: bytes of a copy of the model in another type, where one is made.
    """

    memory: int = DEFAULT_MEMORY
    tile: int = TILES["cpu"]
    itemsize: int = 4
    reading: int = READING["cpu"]
    beside: int = BESIDE["cpu"]
    verified: int = 0
    host: int | None = None
    shared: bool = True
    copied: int = 0
