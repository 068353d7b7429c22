"""The published checkpoints' dimensions, so that what a study costs is known without weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from microtome.language.sites import Dimensions


def _gpt2(layers: int, heads: int) -> Dimensions:
    """GPT-2's family: 64 dimensions a head, four times the width in the MLP."""
    return Dimensions(
        n_layers=layers,
        n_heads=heads,
        n_kv_heads=heads,
        d_model=64 * heads,
        d_head=64,
        d_mlp=4 * 64 * heads,
        d_vocab=50257,
        n_positions=1024,
    )


def _bert(layers: int, heads: int) -> Dimensions:
    """BERT's family, the uncased vocabulary."""
    return replace(_gpt2(layers, heads), d_vocab=30522, n_positions=512, causal=False)


CHECKPOINTS: Mapping[str, Dimensions] = MappingProxyType(
    {
        "gpt2": _gpt2(12, 12),
        "gpt2-medium": _gpt2(24, 16),
        "gpt2-large": _gpt2(36, 20),
        "gpt2-xl": _gpt2(48, 25),
        "bert-large-uncased": _bert(24, 16),
    }
)
"""Hub id → dimensions."""
