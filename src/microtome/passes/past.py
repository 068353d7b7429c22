"""The past of a text: what its clean run attended to, as the cache that transformers goes on from.

A model goes on from its own cache when it writes, one token at a time; here it goes on from the
middle of a text in the same way, so that what comes before need not be computed again. Mask,
positions and attention are the model's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer


@dataclass(frozen=True, eq=False)
class Past:
    """Keys and values of one text in every block, as its attention saw them."""

    keys: Sequence[Float[Tensor, "1 kv_head pos d_head"]]
    values: Sequence[Float[Tensor, "1 kv_head pos d_value"]]

    def before(self, position: int, rows: int) -> DynamicCache:
        """The cache of so many rows, which are all this text up to a position."""
        cache = DynamicCache()
        cache.layers = [
            _Layer(*(one[:, :, :position].expand(rows, -1, -1, -1) for one in both))
            for both in zip(self.keys, self.values, strict=True)
        ]
        return cache


class _Layer(DynamicLayer):  # type: ignore[misc]
    """A layer of a cache that remembers nothing new: the rows' own keys are wanted once."""

    def __init__(
        self,
        keys: Float[Tensor, "row kv_head pos d_head"],
        values: Float[Tensor, "row kv_head pos d_value"],
    ) -> None:
        super().__init__()
        self.keys, self.values = keys, values
        self.dtype, self.device = keys.dtype, keys.device
        self.is_initialized = True

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any
    ) -> tuple[Tensor, Tensor]:
        """All keys and values, the new ones behind."""
        before = self.keys, self.values
        both: tuple[Tensor, Tensor] = super().update(key_states, value_states, *args, **kwargs)
        self.keys, self.values = before
        return both
