"""microtome: the whole map in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

import microtome as mt
from benchmarks.models import Subject
from benchmarks.questions import Cell, Question

NAME = "microtome"
UNITS = {"z": "head", "mlp_post": "neuron", "resid_post": "d"}


class Microtome:
    """`mt.sweep`, timed whole: tokens, clean runs, donor runs and labelling are in it."""

    def __init__(self, subject: Subject) -> None:
        self.model = mt.load(subject.twin(), tokenizer=subject.tokenizer)

    def sweep(
        self, question: Question, verify: int | None = None, memory: int | None = None
    ) -> mt.Effects:
        """The map, by the default call: what it verifies by itself is in it, unless told."""
        options: dict[str, Any] = {} if verify is None else {"verify": verify}
        effects: mt.Effects = mt.sweep(
            self.model,
            question.prompts,
            question.map.edit(question.shape),
            metrics="logit_diff",
            progress=False,
            memory=memory,
            **options,
        )
        return effects

    @staticmethod
    def values(effects: mt.Effects, question: Question, cells: Sequence[Cell]) -> Tensor:
        """The logit difference of some cells, [cell, prompt]."""
        data = effects.data["logit_diff"]
        unit = UNITS[question.map.site]
        found = []
        for cell in cells:
            at = {"layer": cell.layer, unit: cell.unit, "pos": cell.position}
            own = data.sel({name: value for name, value in at.items() if name in data.dims})
            found.append(torch.from_numpy(own.values.reshape(len(question.prompts)).copy()))
        return torch.stack(found).float()
