"""Rotary embeddings that follow the length of the text: how a text of some length is turned."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import PretrainedConfig

from microtome.model.families.configs import rotary_of


def turned(config: PretrainedConfig, length: int) -> tuple[int, ...]:
    """What the frequencies depend on of a text's length: equal for two that are turned alike.

    Of a dynamic embedding the length itself, beyond the one that the model was trained on; of
    longrope whether it is beyond that.
    """
    longest: int = getattr(config, "max_position_embeddings", 0)
    return tuple(_turned(one, length, longest) for one in rotary_of(config))


def _turned(rotary: Mapping[str, Any], length: int, longest: int) -> int:
    match rotary.get("rope_type"):
        case "dynamic":
            return max(length, longest)
        case "longrope":
            return int(length > (rotary.get("original_max_position_embeddings") or longest))
        case _:
            return 0
