"""Faults of a walk, made on purpose: what verification is there to find."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch

from microtome.edits.application import Application
from microtome.engines.walk import batches, blocks, edited

Break = Callable[[pytest.MonkeyPatch], None]


@dataclass
class Skipping(Application):
    """An edit that tells of what it would have changed, and changes nothing."""

    def _act(self, view: torch.Tensor) -> None:
        before = view.clone()
        super()._act(view)
        view.copy_(before)


def changed(monkeypatch: pytest.MonkeyPatch, other: Callable[[Application], Application]) -> None:
    """Let the walk make other edits than it should."""
    plain = edited._together
    monkeypatch.setattr(edited, "_together", lambda *given: other(plain(*given)))


def skips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits are left out; their receipts say that they were made."""
    changed(monkeypatch, lambda own: Skipping(**vars(own)))


def forgets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits are left out, and have no receipts either."""
    monkeypatch.setattr(blocks, "edits_at", lambda *_: iter(()))


def moved(own: Application, axis: str, by: int, size: int | None = None) -> Application:
    """The same edit elsewhere."""
    number = own.regions.site.axes.index(axis)
    columns = list(own.regions.columns)
    there = columns[number] + by
    columns[number] = np.maximum(there, 0) if size is None else there % size
    return replace(own, regions=replace(own.regions, columns=tuple(columns)))


def neighbour(axis: str, size: int) -> Break:
    """Edits land in the next head, or neuron."""

    def broken(monkeypatch: pytest.MonkeyPatch) -> None:
        changed(monkeypatch, lambda own: moved(own, axis, 1, size))

    return broken


def one_token_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """Edits land at the token before."""
    plain = batches.starts_of

    def earlier(*given: Any) -> Any:
        found = plain(*given)
        return {
            prompt: own._replace(positions=np.maximum(own.positions - 1, 0))
            for prompt, own in found.items()
        }

    monkeypatch.setattr(batches, "starts_of", earlier)
    changed(monkeypatch, lambda own: moved(own, "pos", -1))
