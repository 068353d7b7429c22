"""Executors: what runs units."""

from __future__ import annotations

from typing import Protocol

from microtome.engines.block import Block
from microtome.plan.units import Unit


class Executor(Protocol):
    """Runs units of one plan on one model; see `engines.walk` and `engines.reference`."""

    def run(self, unit: Unit) -> Block:
        """Compute the cells of a unit."""
