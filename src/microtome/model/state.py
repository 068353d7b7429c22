"""Whether a model still computes what it did: its weights, modules, hooks and adapters."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from transformers import PreTrainedModel

from microtome.model.additions import adapters, additions
from microtome.model.identity import (
    Remembered,
    buffer_hash,
    changed_names,
    modules_hash,
    weight_hash,
    weights_sign,
)

LARGE = 2**30
"""Bytes of weights that take about a second to hash: those of a larger model are not."""

IDLE = (
    "gradient_checkpointing",
    *(f"{name}_token_id" for name in ("pad", "bos", "eos", "sep", "cls")),
)
"""Settings that decide no number of a pass, without training."""

_hashed: WeakKeyDictionary[PreTrainedModel, Remembered] = WeakKeyDictionary()


@dataclass(frozen=True)
class State:
    """What decides a model's numbers, at one time.

    Attributes:
        weights: a sign of them, which may miss a few numbers changed through ``.data``.
        same: a hash of them all, which is the same wherever in memory they lie, and their devices;
            empty of a large model, of which only the sign tells.
        modules: a hash of their settings, and of the configuration.
        added: what somebody has put on it.
        adapters: how they are set.
    """

    weights: Hashable
    same: str
    modules: str
    added: tuple[str, ...]
    adapters: str

    @classmethod
    def of(cls, hf: PreTrainedModel) -> State:
        """Of a model as it is now."""
        sign = weights_sign(hf)
        return cls(
            sign,
            _hashed.setdefault(hf, Remembered()).get(sign, lambda: _same(hf)),
            modules_hash(hf, IDLE),
            tuple(map(str, additions(hf))),
            json.dumps(adapters(hf), sort_keys=True, default=str),
        )

    def difference(self, other: State) -> str:
        """What is another than it was, in words; nothing where all is as it was."""
        if self.weights != other.weights and (not self.same or self.same != other.same):
            return f"its weights: {changed_names(self.weights, other.weights)}"
        if self.added != other.added:
            return "what is put on it, such as hooks"
        if self.adapters != other.adapters:
            return "its adapters"
        return "the settings of its modules" if self.modules != other.modules else ""


def _same(hf: PreTrainedModel) -> str:
    """What stays where the same weights are loaded again, or changed and changed back."""
    if hf.get_memory_footprint() > LARGE:
        return ""
    devices = sorted({str(one.device) for one in hf.parameters()})
    return " ".join((weight_hash(hf), buffer_hash(hf), *devices))
