"""Whether a model still computes what it did: its weights, modules, hooks and adapters."""

from __future__ import annotations

import json
from collections.abc import Hashable
from dataclasses import dataclass

from transformers import PreTrainedModel

from microtome.model.additions import adapters, additions
from microtome.model.identity import changed_names, modules_hash, weights_sign


@dataclass(frozen=True)
class State:
    """What decides a model's numbers, at one time.

    Attributes:
        weights: a sign of them, which may miss a few numbers changed through ``.data``.
        modules: a hash of their settings, and of the configuration.
        added: what somebody has put on it.
        adapters: how they are set.
    """

    weights: Hashable
    modules: str
    added: tuple[str, ...]
    adapters: str

    @classmethod
    def of(cls, hf: PreTrainedModel) -> State:
        """Of a model as it is now."""
        return cls(
            weights_sign(hf),
            modules_hash(hf),
            tuple(map(str, additions(hf))),
            json.dumps(adapters(hf), sort_keys=True, default=str),
        )

    def difference(self, other: State) -> str:
        """What is another than it was, in words; nothing where all is as it was."""
        if self.weights != other.weights:
            return f"its weights: {changed_names(self.weights, other.weights)}"
        if self.added != other.added:
            return "what is put on it, such as hooks"
        if self.adapters != other.adapters:
            return "its adapters"
        return "the settings of its modules" if self.modules != other.modules else ""
