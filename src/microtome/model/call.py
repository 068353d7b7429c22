"""Calls: with what a block was called in a clean run, and how to call it again from its middle."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor, nn
from transformers import Cache

from microtome.errors import MicrotomeError

REMEMBERED = 64
"""Of so many functions it is kept what their arguments are called."""


@dataclass(frozen=True, eq=False)
class Call:
    """The arguments of one block's call besides the hidden state, by name.

    All prompts of the run are of one length and unpadded, so what is per prompt is the same for all
    of them, and the first one's is kept.

    Attributes:
        arguments: without the cache.
        cache: the name of the cache, where one was given.
    """

    arguments: Mapping[str, Any]
    cache: str | None

    @classmethod
    def of(cls, block: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call as it was made.

        Raises:
            MicrotomeError: an argument is a tensor of which it is not known how to cut it.
        """
        names = _arguments(type(block).forward)[1:]
        given = {**dict(zip(names, args, strict=False)), **kwargs}
        prompts = len(given.pop(names[0]))
        caches = [name for name, value in given.items() if isinstance(value, Cache)]
        kept = {
            name: _one(name, value, prompts, type(block).__name__)
            for name, value in given.items()
            if name not in caches
        }
        return cls(kept, caches[0] if caches else None)

    def resumed(self, position: int, x: Tensor, plain: bool) -> dict[str, Any]:
        """The arguments for going on from a position, with a hidden state ``[row, own, d_model]``.

        ``plain`` leaves out a mask that says no more than that the model is causal. Otherwise such
        a mask is written out: where a block is given none, it takes its own first position for the
        first of all.
        """
        found = self.whole(len(x), position)
        if plain and self.is_plainly_causal:
            found["attention_mask"] = None
        elif found.get("attention_mask") is None:
            own = x.shape[1]
            seen = torch.ones(own, position + own, dtype=torch.bool, device=x.device)
            found["attention_mask"] = seen.tril(position)[None, None]
        return found

    def at(self, positions: Int[Tensor, " all"]) -> dict[str, Any]:
        """The arguments for a row of tokens of any positions; a mask is to be had elsewhere."""
        others = {name: y for name, y in self.arguments.items() if name != "attention_mask"}
        found = {name: _at(name, value, positions) for name, value in others.items()}
        return {**found, "attention_mask": None}

    def mask(self, position: int) -> Tensor | None:
        """What positions from one on see of all; None: themselves and all before."""
        if self.is_plainly_causal:
            return None
        mask: Tensor = self.arguments["attention_mask"]
        return mask[:, :, position:]

    def whole(self, rows: int, position: int = 0) -> dict[str, Any]:
        """The arguments as they were, from a position on, in so many rows."""
        return {name: _from(name, y, position, rows) for name, y in self.arguments.items()}

    @cached_property
    def is_plainly_causal(self) -> bool:
        """Whether every position sees itself and all before: there is no mask, or a triangle."""
        mask = self.arguments.get("attention_mask")
        if mask is None:
            return True
        seen = mask if mask.dtype == torch.bool else mask == 0
        return bool((seen == torch.ones_like(seen).tril()).all())


def cache_name(base: nn.Module) -> str:
    """What a model calls the cache that it is given: ``cache`` from transformers 5.24 on."""
    return "cache" if "cache" in _arguments(type(base).forward) else "past_key_values"


@lru_cache(REMEMBERED)
def _arguments(function: Callable[..., Any]) -> tuple[str, ...]:
    """The names of a function's arguments: to look them up takes as long as a small block."""
    return tuple(inspect.signature(function).parameters)


def _one(name: str, value: Any, prompts: int, block: str) -> Any:
    """An argument of the first prompt."""
    if isinstance(value, tuple | list) and any(isinstance(x, Tensor) for x in value):
        return tuple(_one(name, x, prompts, block) for x in value)
    if not isinstance(value, Tensor):
        return value
    match name, value.ndim:
        case (
            ("position_ids", 2) | ("position_embeddings", 3) | ("attention_mask", 4) | ("alibi", 4)
        ):
            return value[:1]
        case ("alibi", 3):  # [prompt × head, 1, key]
            return value[: len(value) // prompts]
        case ("cache_position", 1):
            return value
        case _:
            raise MicrotomeError(
                f"{block} is called with {name} of shape {list(value.shape)}, and the walk does "
                "not know how to cut it. Use engine='reference'."
            )


def _from(name: str, value: Any, position: int, rows: int) -> Any:
    if isinstance(value, tuple):
        return tuple(_from(name, x, position, rows) for x in value)
    if not isinstance(value, Tensor):
        return value
    match name:
        case "attention_mask":  # [1, head or 1, query, key]
            return value[:, :, position:]
        case "alibi":  # a bias per key, for each row and head
            return value.repeat(rows, *[1] * (value.ndim - 1))
        case "cache_position":
            return value[position:]
        case _:
            return value[:, position:]


def _at(name: str, value: Any, positions: Int[Tensor, " all"]) -> Any:
    if isinstance(value, tuple):
        return tuple(_at(name, x, positions) for x in value)
    if not isinstance(value, Tensor):
        return value
    own = positions.to(value.device)
    return value[own] if name == "cache_position" else value[:, own]
