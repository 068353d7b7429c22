"""Blocks laid onto the map: one array of the plan's shape for everything measured."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from microtome.engines.block import Array, Block
from microtome.plan.plan import Plan


@dataclass(frozen=True, eq=False)
class Assembled:
    """The values of all cells; NaN marks a cell that does not exist, or has not been computed.

    Attributes:
        values: per metric on the output, of the plan's shape.
        clean: the same without edits, ``[prompt]``.
        inside: per metric inside the model, of the plan's shape and then the metric's.
        clean_inside: the same without edits, ``[prompt, *shape]``.
        changed: how many values each cell's edits changed, of the plan's shape.
        norm: L2 norm of the change, of the plan's shape.
        noise: per metric, the largest noise floor of the blocks.
        verifications: of each unit that has one.
        work: sums over the units.
        notes: of all units, each once.
    """

    values: dict[str, Array]
    clean: dict[str, Array]
    inside: dict[str, Array]
    clean_inside: dict[str, Array]
    changed: Array
    norm: Array
    noise: dict[str, float] = field(default_factory=dict)
    verifications: list[dict[str, Any]] = field(default_factory=list)
    work: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)


def assemble(plan: Plan, blocks: Iterable[Block]) -> Assembled:
    """All blocks of a plan as arrays of its shape."""

    def absent(*shape: int) -> Array:
        return np.full(shape, np.nan)

    whole = Assembled({}, {}, {}, {}, absent(*plan.shape), absent(*plan.shape))
    for block in blocks:
        where = tuple(plan.cells.points[block.cells].T)
        whole.changed[where], whole.norm[where] = block.changed, block.norm
        for name, values in block.values.items():
            whole.values.setdefault(name, absent(*plan.shape))[where] = values
        for name, values in block.clean.items():
            whole.clean.setdefault(name, absent(plan.shape[0]))[block.prompts] = values
        for name, values in block.inside.items():
            shape = (*plan.shape, *values.shape[1:])
            whole.inside.setdefault(name, absent(*shape))[where] = values
        for name, values in block.clean_inside.items():
            shape = (plan.shape[0], *values.shape[1:])
            whole.clean_inside.setdefault(name, absent(*shape))[block.prompts] = values
        for name, largest in block.noise.items():
            whole.noise[name] = max(whole.noise.get(name, 0.0), largest)
        if block.verification is not None:
            whole.verifications.append(block.verification)
        whole.work.update(block.work)
        whole.notes.extend(note for note in block.notes if note not in whole.notes)
    return _without_rounding(_mirrored(whole, plan.mirror))


def _mirrored(whole: Assembled, order: tuple[int, ...]) -> Assembled:
    """The same with the other half of a map of pairs, whose axes in this order are the map again.

    An effect is the same whichever of the two edits is named first.
    """
    if not order:
        return whole

    def filled(values: Array) -> Array:
        image = values.transpose(*order, *range(len(order), values.ndim))
        return np.where(np.isnan(values), image, values)

    return replace(
        whole,
        values={name: filled(own) for name, own in whole.values.items()},
        inside={name: filled(own) for name, own in whole.inside.items()},
        changed=filled(whole.changed),
        norm=filled(whole.norm),
    )


def _without_rounding(whole: Assembled) -> Assembled:
    """The same with the clean run's own values where a cell's edits changed nothing.

    Such a cell is the clean run. What it was computed as is rounding of another batch, which blocks
    keep and the noise floor tells of; its effect is 0, and not 1e-6.
    """
    unchanged = np.nonzero(whole.changed == 0)
    prompt = unchanged[0]
    for name, values in whole.values.items():
        values[unchanged] = whole.clean[name][prompt]
    for name, values in whole.inside.items():
        values[unchanged] = whole.clean_inside[name][prompt]
    return whole
