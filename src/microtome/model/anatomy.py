"""Anatomy: where each site of one model is to be found, and how its parts are run by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D

from microtome.amounts import many
from microtome.errors import ArchitectureError, listing
from microtome.language.sites import (
    OF_GROUPS,
    OF_HEADS,
    OF_READERS,
    SITES,
    Dimensions,
    Site,
)
from microtome.model.devices import numbers
from microtome.model.families import FAMILIES
from microtome.model.families.configs import unchanged
from microtome.model.families.family import Family
from microtome.model.families.taps import Tap
from microtome.model.matrices import bias_of, matrix_of
from microtome.model.modules import module_at
from microtome.model.placement import is_plain, types_of

NUMBERS = {name: number for number, name in enumerate(SITES)}
"""Sites in the order of a block, from its beginning to its end."""

UNSHARED = "no two heads share one, so that '{}' is the same"

HEAD_ROWS = 64
"""How many rows go through an unembedding at a time whose weights cannot be read by themselves."""


@dataclass(frozen=True)
class Anatomy:
    """The family and the dimensions of one model: everything that can be addressed in it."""

    family: Family
    dims: Dimensions

    @classmethod
    def of(cls, hf: PreTrainedModel, family: Family | None = None) -> Anatomy:
        """The anatomy of a model, by its row of the table or by one that is given.

        Raises:
            ArchitectureError: the architecture is not in the table, or it is but without a
                language-model head.
        """
        family = family or family_of(hf.config, f"{type(hf).__name__} is")
        if hf.get_output_embeddings() is None:
            raise ArchitectureError(
                f"{type(hf).__name__} has no language-model head, so there are no logits to "
                f"measure. Load it with {family.auto.__name__}."
            )
        return cls.by(family, hf.config)

    @classmethod
    def by(cls, family: Family, config: PretrainedConfig) -> Anatomy:
        """The anatomy of a model of this configuration, by a row of the table.

        Raises:
            ArchitectureError: the configuration asks for blocks of a shape that the row is not of.
        """
        fitted = family.fits(family, config)
        dims = replace(
            fitted.dimensions(config),
            causal=fitted.causal,
            lacks=fitted.lacks,
            shapes_logits=fitted.logits is not unchanged,
            reaches=fitted.reaches(config),
            sums=fitted.mid_norm is None and fitted.post_norm is None,
        )
        if dims.n_kv_heads == dims.n_heads:
            shared = {**OF_HEADS, **OF_GROUPS}.items()
            own = tuple((site, UNSHARED.format(of)) for site, of in shared)
            dims = replace(dims, lacks=(*dims.lacks, *own))
        return cls(fitted, dims)

    @property
    def sites(self) -> tuple[Site, ...]:
        """The sites that the model has, in the order of the forward pass."""
        lacking = {name for name, _ in self.dims.lacks}
        has = {*self.family.taps, *OF_HEADS, *OF_READERS, "head_out", "final_in"} - lacking
        return tuple(site for name, site in SITES.items() if name in has)

    def tap(self, site: Site, layer: int | Literal["*"] | None) -> Tap:
        """Where a site of a layer lives, or of all layers; its module path is whole.

        What a head reads and what it writes are no module's tensors: that is who reads or writes.
        """
        tap, family = self._tap(site.name), self.family
        if site.name in OF_READERS and family.reads is not None:
            tap = replace(tap, module=family.reads)
        return replace(tap, module=tap.module.format(layer=layer))

    def _tap(self, site: str) -> Tap:
        taps = self.family.taps
        if site in OF_READERS:
            return Tap(taps[OF_READERS[site]].module, "input")
        if site == "head_out":
            return self.mixed
        if site == "final_in":  # nothing but the final norm reads what leaves the last block
            last = taps["resid_post"].module.format(layer=self.dims.n_layers - 1)
            return replace(taps["resid_post"], module=last)
        return taps[OF_HEADS.get(site, site)]

    @property
    def mixed(self) -> Tap:
        """What the heads add together, before a norm of that where there is one."""
        attn_out = self.family.taps["attn_out"]
        return attn_out if self.family.attn_norm is None else Tap(self.family.out_proj, "output")

    def normed(self, hf: PreTrainedModel, layer: int, stream: Tensor) -> Tensor:
        """What q, k and v are made of, of a residual stream ``[…, pos, d_model]``."""
        return self._through(hf, layer, self.family.reads, stream)

    def mlp_normed(self, hf: PreTrainedModel, layer: int, stream: Tensor) -> Tensor:
        """What the MLP gets of a residual stream, where it shares the norm of attention."""
        return self._through(hf, layer, self.family.mlp_reads, stream)

    def projection(self, hf: PreTrainedModel, layer: int, site: str) -> nn.Module:
        """The module whose output a layer's q, k or v is a part of."""
        return _module(hf, self.family.taps[site].module, layer)

    def projected(self, hf: PreTrainedModel, layer: int, site: str, normed: Tensor) -> Tensor:
        """q, k or v ``[…, pos, heads, d_head]`` of what `normed` gave."""
        own = self.projection(hf, layer, site)(normed)
        return self.family.taps[site].view(own, self.dims)

    def projected_head(
        self,
        hf: PreTrainedModel,
        layer: int,
        site: str,
        normed: Tensor,
        head: int,
        besides: type | None = None,
    ) -> Tensor:
        """One head's part of `projected`, ``[…, pos, d_head]``, by its own columns where it can be.

        Hooks of the class ``besides`` on the module do not count.
        """
        module, view = self.projection(hf, layer, site), self.family.taps[site].view
        is_linear = is_plain(module, nn.Linear, besides)
        if not is_linear and not is_plain(module, Conv1D, besides):
            return self.projected(hf, layer, site, normed)[..., head, :]
        weight = cast(Tensor, module.weight)
        columns = view(weight.T if is_linear else weight, self.dims)[:, head]
        bias = cast("Tensor | None", module.bias)
        own = None if bias is None else view(bias[None], self.dims)[0, head]
        return nn.functional.linear(normed, columns.T, own)  # rounded once, as the module's own is

    def joint(self, hf: PreTrainedModel, layer: int, site: str, values: Tensor) -> Tensor:
        """What a norm over all heads of q or k together makes of them, where there is one."""
        norm = self.family.joint.get(site)
        if norm is None:
            return values
        return self._through(hf, layer, norm, values.flatten(-2)).view_as(values)

    def in_matrix(self, hf: PreTrainedModel, layer: int, site: str, normed: Tensor) -> Tensor:
        """W_Q, W_K or W_V by heads, ``[head, d_head, d_model]``, of the type of what it reads."""
        module = self.projection(hf, layer, site)
        if is_plain(module, nn.Linear):
            whole = cast(Tensor, module.weight).T
        elif is_plain(module, Conv1D):
            whole = cast(Tensor, module.weight)
        else:  # whatever it computes is linear but for the bias
            units = torch.eye(normed.shape[-1], device=normed.device, dtype=normed.dtype)
            whole = module(units) - module(torch.zeros_like(units[:1]))
        by_input = self.family.taps[site].view(whole.contiguous(), self.dims)
        return by_input.permute(1, 2, 0)

    def out_matrix(
        self, hf: PreTrainedModel, layer: int, z: Tensor, besides: type | None = None
    ) -> Tensor:
        """W_O by heads, ``[head, d_head, d_model]``: what a head adds is its ``z`` times its own.

        With the multiplier of what attention adds, where there is one, and where a ``z`` is, of its
        type; hooks of the class ``besides`` on the module do not count.
        """
        whole = self.mixed.view(self._out_matrix(hf, layer, z, besides), self.dims)
        return whole.reshape(self.dims.n_heads, self.dims.d_head, -1)

    def _out_matrix(
        self, hf: PreTrainedModel, layer: int, z: Tensor, besides: type | None
    ) -> Tensor:
        width = self.dims.n_heads * self.dims.d_head
        return matrix_of(self.out_proj(hf, layer), width, z, besides)

    def down_matrix(self, hf: PreTrainedModel, layer: int, like: Tensor) -> Tensor:
        """W_out, ``[neuron, d_model]``: what a neuron adds, before a norm, is its own times its.

        With the multiplier of what the MLP adds, where there is one; ``like`` is of the neurons'
        device and type.
        """
        own = matrix_of(self.down_proj(hf, layer), self.dims.d_mlp, like)
        return own if self.family.mlp_norm is not None else self._mlp_view(own)

    def down_bias(self, hf: PreTrainedModel, layer: int, like: Tensor) -> Tensor:
        """What the down projection adds where no neuron is active, ``[d_model]``, likewise."""
        own = bias_of(self.down_proj(hf, layer), self.dims.d_mlp, like)
        return own if self.family.mlp_norm is not None else self._mlp_view(own)

    def _mlp_view(self, added: Tensor) -> Tensor:
        return self.family.taps["mlp_out"].view(added, self.dims)

    def block(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """A layer's block."""
        return _module(hf, f"{self.family.blocks}.{{layer}}", layer)

    def n_blocks(self, hf: PreTrainedModel) -> int:
        """How many blocks a model runs; one module that stands in two places is two of them."""
        blocks = hf.get_submodule(self.family.blocks)._modules.values()
        return sum(block is not None for block in blocks)

    def check_layers(self, hf: PreTrainedModel) -> None:
        """Raise `ArchitectureError` unless a model has as many blocks as it is to have."""
        found, said = self.n_blocks(hf), self.family.dimensions(hf.config).n_layers
        if (found, said) != (self.dims.n_layers, self.dims.n_layers):
            also = "" if said == found else f" (its configuration says {said})"
            raise ArchitectureError(
                f"This {type(hf).__name__} has {many(found, 'block')}{also}, and "
                f"{self.dims.n_layers} are expected: if layers were added or taken away since it "
                "was loaded, load it again (and let config.num_hidden_layers say how many there "
                "are)."
            )

    def check_words(self, hf: PreTrainedModel) -> None:
        """Raise `ArchitectureError` unless a model knows as many tokens as it is to know."""
        found = self.family.dimensions(hf.config).d_vocab
        if found != self.dims.d_vocab:
            raise ArchitectureError(
                f"This {type(hf).__name__} knows {many(found, 'token')}, and {self.dims.d_vocab:,} "
                "are expected: it was given others since it was loaded (resize_token_embeddings). "
                "Load it again: load(model.hf, tokenizer=…)."
            )

    def dtype(self, hf: PreTrainedModel) -> torch.dtype:
        """The type of the residual stream, which is that of the blocks' weights."""
        blocks = types_of([self.out_proj(hf, 0), self.block(hf, 0)])
        dtype: torch.dtype = blocks[0] if blocks else hf.dtype
        return dtype

    def attention_adds(self, hf: PreTrainedModel, layer: int, z: Tensor) -> Tensor:
        """``attn_out`` of some ``z`` ``[…, head, d_head]``: W_O, and a norm where there is one."""
        added = self.out_proj(hf, layer)(z.flatten(-2))
        return self._added(hf, layer, added, self.family.attn_norm, "attn_out")

    def mixes(self, hf: PreTrainedModel, layer: int, z: Tensor) -> Tensor:
        """The same before that norm: what the heads add together, with the bias."""
        return self.mixed.view(self.out_proj(hf, layer)(z.flatten(-2)), self.dims)

    def attention_normed(self, hf: PreTrainedModel, layer: int, mixed: Tensor) -> Tensor:
        """``attn_out`` of what the heads add together: the norm of it, where there is one."""
        return self._through(hf, layer, self.family.attn_norm, mixed)

    def mlp_adds(self, hf: PreTrainedModel, layer: int, neurons: Tensor) -> Tensor:
        """``mlp_out`` of some ``mlp_post``: the down projection, and a norm where there is one."""
        added = self.down_proj(hf, layer)(neurons)
        return self._added(hf, layer, added, self.family.mlp_norm, "mlp_out")

    def _added(
        self, hf: PreTrainedModel, layer: int, added: Tensor, norm: str | None, site: str
    ) -> Tensor:
        return self.family.taps[site].view(self._through(hf, layer, norm, added), self.dims)

    def middle(self, hf: PreTrainedModel, layer: int, total: Tensor) -> Tensor:
        """``resid_mid`` of ``resid_pre + attn_out``: their sum, or a norm of it."""
        return self._through(hf, layer, self.family.mid_norm, total)

    def after(self, hf: PreTrainedModel, layer: int, total: Tensor) -> Tensor:
        """``resid_post`` of the residual stream before the MLP and ``mlp_out``, likewise."""
        return self._through(hf, layer, self.family.post_norm, total)

    @staticmethod
    def _through(hf: PreTrainedModel, layer: int, norm: str | None, x: Tensor) -> Tensor:
        if norm is None:
            return x
        normed: Tensor = _module(hf, norm, layer)(x)
        return normed

    def out_proj(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module that multiplies a layer's ``z`` by W_O."""
        return _module(hf, self.family.out_proj, layer)

    def attention(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module of a layer that is its attention."""
        return _module(hf, self.family.attention, layer)

    def down_proj(self, hf: PreTrainedModel, layer: int) -> nn.Module:
        """The module that multiplies a layer's neurons by W_out."""
        assert self.family.down_proj is not None, "a mixture of experts has no neurons of its own"
        return _module(hf, self.family.down_proj, layer)

    def mlp(self, hf: PreTrainedModel, layer: int) -> nn.Module | None:
        """The module of a layer that is the whole MLP; None where the block has no such one."""
        around = (self.family.down_proj or "").rpartition(".")[0]
        if around in ("", self.family.blocks + ".{layer}"):
            return None
        return _module(hf, around, layer)

    def final(self, hf: PreTrainedModel, x: Tensor) -> Tensor:
        """What the unembedding reads, of the last block's output ``[…, d_model]``."""
        for step in self.family.final:
            act = module_at(hf, step) if isinstance(step, str) else step
            x = act(x)
        return x

    def unembed(
        self, hf: PreTrainedModel, final: Tensor, columns: Sequence[int] | None = None
    ) -> Tensor:
        """Logits ``[…, vocab]``, or of a few tokens, of what `final` gave."""
        return self.family.logits(self.plain_logits(hf, final, columns), hf.config)

    def plain_logits(
        self, hf: PreTrainedModel, final: Tensor, columns: Sequence[int] | None = None
    ) -> Tensor:
        """The same before a cap or a scale, where the family has one."""
        head = hf.get_output_embeddings()
        if columns is None:
            return cast(Tensor, head(final))
        own = numbers(final.device, columns)
        if not is_plain(head):
            parts = (head(part)[..., own] for part in torch.split(final, HEAD_ROWS))
            return torch.cat([*parts])
        weight: Tensor = head.weight[own]
        bias = getattr(head, "bias", None)
        bias = None if bias is None else bias[own]
        return nn.functional.linear(final, weight, bias)

    def unembedding(
        self, hf: PreTrainedModel, columns: Sequence[int], like: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Rows of W_U ``[token, d_model]`` and their biases ``[token]``, of a few tokens.

        Without what is done to logits afterwards; ``like`` is of the device and type of what the
        unembedding reads.
        """
        head = hf.get_output_embeddings()
        own = numbers(like.device, columns)
        bias = bias_of(head, self.dims.d_model, like)[own]
        if is_plain(head):
            return head.weight[own], bias
        return matrix_of(head, self.dims.d_model, like)[:, own].T, bias

    def scale_of_logits(self, hf: PreTrainedModel) -> float:
        """What the family multiplies logits by; 1 where it does something else, as a cap is."""
        probe = torch.tensor([1.0, 1000.0], dtype=torch.float64, device="cpu")
        one, many = self.family.logits(probe, hf.config).tolist()
        return float(one) if abs(many - 1000 * one) <= 1e-9 * abs(many) else 1.0

    def resume(
        self, hf: PreTrainedModel, layer: int, x: Tensor, arguments: Mapping[str, Any]
    ) -> Tensor:
        """One block's output ``[batch, pos, d_model]`` from its input, run by itself.

        What came before must be in the arguments, or known to the attention function already.
        """
        output = self.block(hf, layer)(x, **arguments)
        result: Tensor = output[0] if isinstance(output, tuple) else output
        return result

    def order(self, site: Site, layer: int | None) -> tuple[int, int]:
        """Sorts places by when the forward pass gets there.

        Sites of no layer come where they are: before the first block, after the last.
        """
        if layer is None:
            layer = -1 if site.name == "embed" else self.dims.n_layers
        return layer, NUMBERS[site.name]

    def places(self) -> list[tuple[Site, int | None]]:
        """Every (site, layer) of the model, in the order of the forward pass."""
        layers = range(self.dims.n_layers)
        found: list[tuple[Site, int | None]] = []
        for site in self.sites:
            found += [(site, layer) for layer in layers] if site.layered else [(site, None)]
        return sorted(found, key=lambda place: self.order(*place))


def _module(hf: PreTrainedModel, path: str, layer: int) -> nn.Module:
    """A layer's module, by its path in a row."""
    return module_at(hf, path.format(layer=layer))


def family_of(config: PretrainedConfig, what: str) -> Family:
    """The row of a configuration's architecture; ``what`` begins the sentence that refuses it.

    Raises:
        ArchitectureError: it is not in the table.
    """
    kind = config.model_type
    if kind not in FAMILIES:
        raise ArchitectureError(
            f"{what} a {kind!r} model, which is not in microtome's table of families; there are: "
            f"{listing(FAMILIES)}. To add it, write a row as in microtome/model/families, and "
            "give it with the module, load(hf, tokenizer=…, family=row): the probe checks it."
        )
    return FAMILIES[kind]
