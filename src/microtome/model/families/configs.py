"""What rows read off a model's configuration, and off the release of transformers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import transformers
from packaging.version import Version
from torch import Tensor
from transformers import PretrainedConfig

from microtome.errors import ArchitectureError
from microtome.language.sites import Dimensions


def sizes(config: PretrainedConfig) -> Dimensions:
    """The dimensions of a model, by the names that most configurations give them."""
    d_head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Dimensions(
        n_layers=config.num_hidden_layers,
        n_heads=config.num_attention_heads,
        n_kv_heads=getattr(config, "num_key_value_heads", None) or config.num_attention_heads,
        d_model=config.hidden_size,
        d_head=d_head,
        d_mlp=config.intermediate_size,
        d_vocab=config.vocab_size,
    )


def sizes_by_n(config: PretrainedConfig) -> Dimensions:
    """The same, by the names that GPT-2's gives them, and those of its kin."""
    return Dimensions(
        n_layers=config.n_layer,
        n_heads=config.n_head,
        n_kv_heads=config.n_head,
        d_model=config.n_embd,
        d_head=config.n_embd // config.n_head,
        d_mlp=config.n_inner or 4 * config.n_embd,
        d_vocab=config.vocab_size,
        n_positions=config.n_positions,
    )


def gated(config: PretrainedConfig) -> Dimensions:
    """The same, of a model whose neurons are products of two projections: three matrices."""
    return replace(sizes(config), mlp_matrices=3)


def rotary_of(config: PretrainedConfig) -> tuple[Mapping[str, Any], ...]:
    """What a configuration says of its rotary embeddings: one for each kind of layer; or none."""
    given = getattr(config, "rope_parameters", None) or getattr(config, "rope_scaling", None) or {}
    several = [one for one in given.values() if isinstance(one, Mapping)]
    return tuple(several) or (given,)


def reaches(config: PretrainedConfig) -> tuple[int | None, ...]:
    """How far back each layer's tokens see, by the names that most configurations give it.

    In a sliding window; None where it is to the first token.
    """
    width = getattr(config, "sliding_window", None)
    if width is None:
        return ()
    kinds = getattr(config, "layer_types", None)
    kinds = kinds or ["sliding_attention"] * config.num_hidden_layers
    return tuple(width - 1 if kind == "sliding_attention" else None for kind in kinds)


def unchanged(x: Tensor, config: PretrainedConfig) -> Tensor:
    """Values as they are."""
    return x


def clipped(x: Tensor, config: PretrainedConfig) -> Tensor:
    """Values cut off at a bound, where the configuration asks for it."""
    bound: float | None = config.clip_qkv
    return x if bound is None else x.clamp(-bound, bound)


def soft_capped(logits: Tensor, config: PretrainedConfig) -> Tensor:
    """Logits pressed into a range by a tanh, where the configuration asks for it."""
    cap: float | None = config.final_logit_softcapping
    return logits if cap is None else (logits / cap).tanh() * cap


def since(release: str) -> bool:
    """Whether transformers is of this release or a later one."""
    return Version(transformers.__version__).release >= Version(release).release


def refuse(config: PretrainedConfig, setting: str, why: str) -> ArchitectureError:
    """The error for a configuration whose blocks have another shape than its family's row."""
    return ArchitectureError(
        f"This {config.model_type!r} model has {setting}={getattr(config, setting)!r}: {why}. "
        "microtome does not know its sites."
    )
