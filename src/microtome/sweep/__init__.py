"""Sweeps: every cell that an address with stars spans, computed and labelled."""

from microtome.sweep.sweep import sweep

__all__ = ["sweep"]
