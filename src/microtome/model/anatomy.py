"""Anatomy: where each site of a Hugging Face architecture is to be found.

`FAMILIES` is a table with a row per architecture. A row says in which module's input or output
each site lives and which part of that tensor it is. The load-time probe proves a row on the model
at hand; nothing else in microtome knows module names.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel

from microtome.errors import ArchitectureError, listing
from microtome.sites import Dimensions, Site
from microtome.sites import site as find_site

View = Callable[[Tensor, Dimensions], Tensor]
"""Picks a site's values out of a module's tensor, as a view: writing to it writes to the tensor."""


def whole(x: Tensor, dims: Dimensions) -> Tensor:
    """``[batch, pos, d]``, as it is."""
    return x


def heads(x: Tensor, dims: Dimensions) -> Tensor:
    """``[batch, pos, n_heads * d_head]`` → ``[batch, pos, head, d_head]``."""
    return x.view(*x.shape[:-1], dims.n_heads, dims.d_head)


def third(number: int) -> View:
    """One of q, k, v, laid side by side by thirds → ``[batch, pos, head, d_head]``."""

    def view(x: Tensor, dims: Dimensions) -> Tensor:
        width = dims.n_heads * dims.d_head
        return heads(x.narrow(-1, number * width, width), dims)

    return view


@dataclass(frozen=True)
class Tap:
    """Where a site lives: a module's input or output, and the part of that tensor.

    ``module`` is a path from the root, with ``{layer}`` for the block's number; "" is the root.
    ``in_place`` marks a tensor that the block goes on using besides the module that it is tapped
    at (the residual stream in front of a norm): an edit must write into it, not replace it.
    """

    module: str
    side: Literal["input", "output"]
    view: View = whole
    in_place: bool = False


@dataclass(frozen=True)
class Family:
    """One row of the table: how an architecture lays out its sites.

    ``blocks`` is the list of blocks, ``out_proj`` the module that multiplies ``z`` by W_O,
    ``down_proj`` the one that makes ``mlp_out`` of ``mlp_post``, ``final_norm`` what stands
    between the last block and the unembedding.
    """

    model_type: str
    dimensions: Callable[[PretrainedConfig], Dimensions]
    blocks: str
    out_proj: str
    down_proj: str
    final_norm: str
    taps: Mapping[str, Tap]


def _gpt2_dimensions(config: PretrainedConfig) -> Dimensions:
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


GPT2 = Family(
    model_type="gpt2",
    dimensions=_gpt2_dimensions,
    blocks="transformer.h",
    out_proj="transformer.h.{layer}.attn.c_proj",
    down_proj="transformer.h.{layer}.mlp.c_proj",
    final_norm="transformer.ln_f",
    taps=MappingProxyType(
        {
            "embed": Tap("transformer.h.0", "input"),
            "resid_pre": Tap("transformer.h.{layer}", "input"),
            "q": Tap("transformer.h.{layer}.attn.c_attn", "output", third(0)),
            "k": Tap("transformer.h.{layer}.attn.c_attn", "output", third(1)),
            "v": Tap("transformer.h.{layer}.attn.c_attn", "output", third(2)),
            "z": Tap("transformer.h.{layer}.attn.c_proj", "input", heads),
            "attn_out": Tap("transformer.h.{layer}.attn.c_proj", "output"),
            "resid_mid": Tap("transformer.h.{layer}.ln_2", "input", in_place=True),
            "mlp_post": Tap("transformer.h.{layer}.mlp.c_proj", "input"),
            "mlp_out": Tap("transformer.h.{layer}.mlp", "output"),
            "resid_post": Tap("transformer.h.{layer}", "output"),
            "logits": Tap("", "output"),
        }
    ),
)

FAMILIES: Mapping[str, Family] = MappingProxyType({row.model_type: row for row in (GPT2,)})
"""Hugging Face ``config.model_type`` → family."""


@dataclass(frozen=True)
class Anatomy:
    """The family and the dimensions of one model: everything that can be addressed in it."""

    family: Family
    dims: Dimensions

    @classmethod
    def of(cls, hf: PreTrainedModel) -> Anatomy:
        """The anatomy of a model.

        Raises:
            ArchitectureError: the architecture is not in the table, or it is but without a
                language-model head.
        """
        kind = hf.config.model_type
        if kind not in FAMILIES:
            raise ArchitectureError(
                f"{type(hf).__name__} (model_type {kind!r}) is not in microtome's table of "
                f"families; there are: {listing(FAMILIES)}. To add it, write a row in "
                "microtome/model/anatomy.py: the probe checks it when the model is loaded."
            )
        if hf.get_output_embeddings() is None:
            raise ArchitectureError(
                f"{type(hf).__name__} has no language-model head, so there are no logits to "
                "measure. Load it with AutoModelForCausalLM."
            )
        family = FAMILIES[kind]
        return cls(family, family.dimensions(hf.config))

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that the model has, in the order of the forward pass."""
        return tuple(find_site(name) for name in self.family.taps)

    def tap(self, site: Site, layer: int | None) -> Tap:
        """Where a site of a layer lives; its module path is whole."""
        tap = self.family.taps[site.name]
        return Tap(tap.module.format(layer=layer), tap.side, tap.view, tap.in_place)

    def out_proj(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module that multiplies a layer's ``z`` by W_O."""
        module: nn.Module = hf.get_submodule(self.family.out_proj.format(layer=layer))
        return module

    def down_proj(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module that makes a layer's ``mlp_out`` of its ``mlp_post``."""
        module: nn.Module = hf.get_submodule(self.family.down_proj.format(layer=layer))
        return module

    def mlp(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module around a layer's down projection."""
        path = self.family.down_proj.format(layer=layer)
        module: nn.Module = hf.get_submodule(path.rpartition(".")[0])
        return module

    def final_norm(self, hf: PreTrainedModel) -> nn.Module:
        """The norm between the last block and the unembedding."""
        module: nn.Module = hf.get_submodule(self.family.final_norm)
        return module

    def unembed(
        self, hf: PreTrainedModel, final: Tensor, columns: Sequence[int] | None = None
    ) -> Tensor:
        """Logits ``[…, vocab]``, or of a few tokens, of what the final norm gave."""
        head = hf.get_output_embeddings()
        if columns is None:
            logits: Tensor = head(final)
            return logits
        weight: Tensor = head.weight[list(columns)]
        bias = getattr(head, "bias", None)
        return nn.functional.linear(final, weight, None if bias is None else bias[list(columns)])

    def resume(self, hf: PreTrainedModel, layer: int, x: Tensor) -> Tensor:
        """One block's output ``[batch, pos, d_model]`` from its input, run by itself.

        Position and causality must be in the input and the attention function already.
        """
        output = hf.get_submodule(f"{self.family.blocks}.{layer}")(x)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def order(self, site: Site, layer: int | None) -> tuple[int, int]:
        """Sorts places by when the forward pass gets there.

        Sites of no layer come where they are: before the first block, after the last.
        """
        names = list(self.family.taps)
        if layer is None:
            layer = -1 if site.name == "embed" else self.dims.n_layers
        return layer, names.index(site.name)

    def places(self) -> list[tuple[Site, int | None]]:
        """Every (site, layer) of the model, in the order of the forward pass."""
        layers = range(self.dims.n_layers)
        found: list[tuple[Site, int | None]] = []
        for site in self.sites:
            found += [(site, layer) for layer in layers] if site.layered else [(site, None)]
        return sorted(found, key=lambda place: self.order(*place))
