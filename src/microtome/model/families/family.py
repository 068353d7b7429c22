"""A row of the table: how an architecture lays out its sites."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Any, Literal, NoReturn

from torch import Tensor
from transformers import AutoModelForCausalLM, AutoModelForMaskedLM, PretrainedConfig

from microtome.errors import MicrotomeError
from microtome.language.sites import Dimensions
from microtome.model.families.configs import (
    clipped,
    gated,
    reaches,
    refuse,
    rotary_of,
    since,
    sizes,
    soft_capped,
    unchanged,
)
from microtome.model.families.taps import (
    Put,
    Tap,
    View,
    fused,
    grouped,
    heads,
    interleaved,
    kv_heads,
    put_grouped,
    put_times,
    split,
    stacked,
    times,
    whole,
)

__all__ = [
    "Family", "Put", "Tap", "View", "clipped", "family", "fused", "gated", "grouped", "heads",
    "interleaved", "kv_heads", "put_grouped", "put_times", "reaches", "refuse", "rotary_of",
    "since", "sizes", "soft_capped", "split", "stacked", "times", "unchanged", "whole",
]  # fmt: skip
"""What rows are written with, wherever it is."""

Step = str | Callable[[Tensor], Tensor]
"""Something done to values on their way: a module, by its path, or a function."""

Upcast = Literal["", "scores", "softmax"]
"""What an attention function computes in float32, whatever the model's type."""


@dataclass(frozen=True)
class Family:
    """One row of the table: how an architecture lays out its sites.

    Attributes:
        model_type: Hugging Face's name.
        dimensions: the sizes of a model, from its configuration.
        blocks: the list of blocks.
        attention: the module that is a block's attention, up to ``z`` at least.
        out_proj: the module that multiplies ``z`` by W_O.
        down_proj: the one that makes ``mlp_out`` of ``mlp_post``; None where there is no such one.
        final: what is done between the last block and the unembedding, one after the other.
        taps: where each site lives, in the order of the forward pass.
        reads: a norm between the residual stream and q, k and v; None: they read the stream.
        mlp_reads: the same norm, where the MLP has none of its own and reads that one's output.
        joint: per site of q, k and v a norm that goes over all its heads together.
        attn_norm, mlp_norm: a norm between a projection and the residual stream.
        mid_norm, post_norm: a norm of the residual stream itself, after attention's addition and
            after the MLP's.
        causal: no position sees a later one.
        logits: what is done to the unembedding's output.
        values: what is done to ``v`` before attention mixes it.
        lacks: sites that it does not have, each with the reason.
        fits: changes of the row that a configuration asks for, or its refusal.
        looks_up: its attention is looked up by name, in transformers' `AttentionInterface`.
        upcast: what its attention without a fused kernel computes in float32.
        inner: what its code computes in float32 whatever the model's type.
        reaches: per layer, how far its tokens see, of a configuration; empty where to all.
    """

    model_type: str
    dimensions: Callable[[PretrainedConfig], Dimensions]
    blocks: str
    attention: str
    out_proj: str
    down_proj: str | None
    final: tuple[Step, ...]
    taps: Mapping[str, Tap]
    reads: str | None = None
    mlp_reads: str | None = None
    joint: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    attn_norm: str | None = None
    mlp_norm: str | None = None
    mid_norm: str | None = None
    post_norm: str | None = None
    causal: bool = True
    logits: Callable[[Tensor, PretrainedConfig], Tensor] = unchanged
    values: Callable[[Tensor, PretrainedConfig], Tensor] = unchanged
    lacks: tuple[tuple[str, str], ...] = ()
    fits: Callable[[Family, PretrainedConfig], Family] = lambda family, config: family
    looks_up: bool = True
    upcast: Upcast = "softmax"
    inner: Literal["", "norms", "attention"] = ""
    reaches: Callable[[PretrainedConfig], tuple[int | None, ...]] = reaches

    @property
    def auto(self) -> Any:
        """The class of transformers that loads it with its language-model head."""
        return AutoModelForCausalLM if self.causal else AutoModelForMaskedLM

    def __reduce__(self) -> NoReturn:
        """Its functions have no names, so that a model with it cannot be pickled either."""
        raise MicrotomeError(
            "A model is not pickled: give other processes its name or its folder "
            "(model.hf.save_pretrained(folder), model.tokenizer.save_pretrained(folder)), and "
            "load that there. A sweep's workers= do it by themselves."
        )

    def __copy__(self) -> Family:
        """Itself, too."""
        return self

    def __deepcopy__(self, memo: object) -> Family:
        """Itself: it is a value, and a copy of a model is of the same family."""
        return self

    def tapped(self, **taps: Tap) -> Family:
        """This row with some sites tapped elsewhere."""
        return replace(self, taps=MappingProxyType({**self.taps, **taps}))

    def read_by(self, norm: str, mlp_reader: str | None = None) -> Family:
        """This parallel row with another norm before q, k and v, and perhaps one for the MLP."""
        block = f"{self.blocks}.{{layer}}"
        own = replace(self, reads=f"{block}.{norm}", mlp_reads=f"{block}.{norm}")
        if mlp_reader is None:
            return own
        return replace(own.tapped(mlp_in=Tap(f"{block}.{mlp_reader}", "input")), mlp_reads=None)


PARALLEL = "attention and MLP read the same input, so there is no residual stream between them"
EXPERTS = (
    "the MLP is a mixture of experts, of which each token takes a few, so that a neuron is not one "
    "place for all tokens; 'mlp_out' is what they add together"
)


def family(
    model_type: str,
    *,
    blocks: str,
    qkv: Mapping[str, Tap],
    out_proj: str,
    mlp: str,
    down_proj: str | None,
    middle: str | None,
    final: tuple[Step, ...],
    dimensions: Callable[[PretrainedConfig], Dimensions] = sizes,
    attention: str | None = None,
    weights: str | None = None,
    reads: str | None = None,
    mlp_reader: str | None = None,
    joint: Mapping[str, str] = MappingProxyType({}),
    attn_norm: str | None = None,
    mlp_norm: str | None = None,
    mid_norm: str | None = None,
    post_norm: str | None = None,
    **rest: Any,
) -> Family:
    """A row, from the names of the modules in a block.

    Args:
        model_type: Hugging Face's name.
        blocks: path of the list of blocks.
        qkv: the taps of q, k and v (`split`, `fused`).
        out_proj: what multiplies ``z`` by W_O.
        mlp: what gives the MLP's output.
        down_proj: what reads the neurons; None in a mixture of experts.
        middle: what reads the residual stream between attention and MLP; None in a parallel block,
            and where a norm gives it.
        final: what is done between the last block and the unembedding: whole paths, functions.
        dimensions: how large a model is, from its configuration.
        attention: the module that is attention, where it is not the one around ``out_proj``.
        weights: what gives the attention weights, where there is such a module (a dropout);
            else attention shows its own.
        reads: a norm between the residual stream and q, k and v.
        mlp_reader: what reads the residual stream for the MLP, where that is not ``middle``: the
            MLP itself, or a norm of its own; None in a parallel block where it shares attention's.
        joint: per site of q, k and v a norm over all its heads together.
        attn_norm, mlp_norm: norms of what is added to the residual stream.
        mid_norm, post_norm: norms of the residual stream after an addition.
        **rest: other fields of `Family`.
    """
    block = f"{blocks}.{{layer}}"

    def inside(name: str) -> str:
        return f"{block}.{name}"

    def perhaps(name: str | None) -> str | None:
        return None if name is None else inside(name)

    around = inside(attention or out_proj.rpartition(".")[0])
    pattern = Tap(around, "weights") if weights is None else Tap(inside(weights), "output")
    taps = {
        "embed": Tap(f"{blocks}.0", "input"),
        "resid_pre": Tap(block, "input"),
        **{site: replace(tap, module=inside(tap.module)) for site, tap in qkv.items()},
        "pattern": pattern,
        "z": Tap(inside(out_proj), "input", heads),
        "attn_out": Tap(inside(attn_norm or out_proj), "output"),
    }
    lacks = []
    if mid_norm is not None:
        taps["resid_mid"] = Tap(inside(mid_norm), "output")
    elif middle is None:
        lacks.append(("resid_mid", PARALLEL))
    else:
        taps["resid_mid"] = Tap(inside(middle), "input", in_place=True)
    shares = middle is None and mlp_reader is None
    taps["mlp_in"] = Tap(inside(mlp_reader or middle or mlp), "input")
    if down_proj is None:
        lacks.append(("mlp_post", EXPERTS))
    else:
        taps["mlp_post"] = Tap(inside(down_proj), "input")
    taps["mlp_out"] = Tap(inside(mlp_norm or mlp), "output")
    taps["resid_post"] = Tap(block, "output")
    taps["logits"] = Tap("", "output")
    return Family(
        model_type=model_type,
        dimensions=dimensions,
        blocks=blocks,
        attention=around,
        out_proj=inside(out_proj),
        down_proj=perhaps(down_proj),
        final=final,
        taps=MappingProxyType(taps),
        reads=perhaps(reads),
        mlp_reads=perhaps(reads) if shares else None,
        joint=MappingProxyType({site: inside(norm) for site, norm in joint.items()}),
        attn_norm=perhaps(attn_norm),
        mlp_norm=perhaps(mlp_norm),
        mid_norm=perhaps(mid_norm),
        post_norm=perhaps(post_norm),
        lacks=tuple(lacks),
        **rest,
    )
