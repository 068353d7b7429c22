"""How the sites of a model follow from each other: what the load-time probe holds a pass to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from microtome.model.anatomy import Anatomy
from microtome.model.placement import is_plain

Seen = dict[tuple[str, int | None], Tensor]
"""What a pass had at each site, by name, of each layer."""


@dataclass(frozen=True)
class Relation:
    """How a site follows from others: ``value`` should be what was ``seen`` there."""

    site: str
    text: str
    value: Tensor
    seen: Tensor


def relations(
    hf: PreTrainedModel, anatomy: Anatomy, seen: Seen, projected: bool = True
) -> Iterator[Relation]:
    """What each site of every layer should be, by what a pass had at the others.

    Without ``projected`` not what heads read of the stream and add to it.
    """
    dims = anatomy.dims
    stream = seen["embed", None]
    for layer in range(dims.n_layers):
        at = {name: x for (name, where), x in seen.items() if where == layer}
        before = "embed" if layer == 0 else f"resid_post of L{layer - 1}"
        values = anatomy.family.values(at.get("v_head", at["v"]), hf.config)
        values = values.repeat_interleave(dims.n_heads // values.shape[2], dim=2)
        mixed = torch.einsum("bhqk,bkhd->bqhd", at["pattern"], values)
        attended = anatomy.attention_adds(hf, layer, at["z"])
        found = [
            ("resid_pre", before, stream),
            ("attn_out", "what z · W_O + b adds", attended),
        ]
        middle, text = at["resid_pre"] + at["attn_out"], "resid_pre + attn_out"
        middle = anatomy.middle(hf, layer, middle)
        if "resid_mid" in at:
            found.append(("resid_mid", text, middle))
            middle, text = at["resid_mid"], "resid_mid"
        read = "resid_mid" if "resid_mid" in at else "resid_pre"
        found.append(("mlp_in", read, at[read]))
        if "mlp_post" in at:
            added = anatomy.mlp_adds(hf, layer, at["mlp_post"])
            found.append(("mlp_out", "what the down projection of mlp_post adds", added))
        after = anatomy.after(hf, layer, middle + at["mlp_out"])
        found.append(("resid_post", f"{text} + mlp_out", after))
        for name, text, value in found:
            yield Relation(name, f"L{layer}: {text} is not {name}", value, at[name])
        yield Relation("z", f"L{layer}: pattern · v is not z", mixed, at["z"])
        if projected:
            yield from _projections(hf, anatomy, layer, at)
        stream = at["resid_post"]
    text = "the last resid_post is not final_in"
    yield Relation("final_in", text, stream, seen["final_in", None])
    logits = anatomy.unembed(hf, anatomy.final(hf, seen["final_in", None]))
    text = "the unembedding of the normed last resid_post is not logits"
    yield Relation("logits", text, logits, seen["logits", None])


def _projections(
    hf: PreTrainedModel, anatomy: Anatomy, layer: int, at: Mapping[str, Tensor]
) -> Iterator[Relation]:
    """Queries, keys and values are of what is read of the stream; what heads add is their sum."""
    normed = anatomy.normed(hf, layer, at["resid_pre"])
    for site in ("q", "k", "v"):
        text = f"L{layer}: the projection of what is read of resid_pre is not {site}"
        yield Relation(site, text, anatomy.projected(hf, layer, site, normed), at[site])
    module = anatomy.out_proj(hf, layer)
    if not any(is_plain(module, kind, besides=object) for kind in (nn.Linear, Conv1D)):
        return  # packed weights may be linear within their own rounding only
    shares = torch.einsum("bphd,hdm->bpm", at["z"], anatomy.out_matrix(hf, layer, at["z"]))
    nothing = anatomy.mixes(hf, layer, torch.zeros_like(at["z"]))
    added = anatomy.mixes(hf, layer, at["z"])
    text = f"L{layer}: the sum of head_out and the bias is not what z · W_O + b gives"
    yield Relation("head_out", text, shares + nothing, added)


def differences(found: Tensor, wanted: Tensor, eps: float = 0.0) -> list[tuple[float, float]]:
    """How far apart two are in each row, and how far rounding may take them there."""
    wanted = wanted.to(found.device)
    rounding = 64 * max(torch.finfo(found.dtype).eps, eps)
    finite = wanted.abs().masked_fill(~wanted.isfinite(), 0).flatten(1).amax(1)
    # An output bias may be minus infinity, which is as far from itself as any number: 0.
    apart = (found - wanted).abs().masked_fill(found == wanted, 0).flatten(1).amax(1)
    scales = (max(1.0, scale) for scale in finite.tolist())
    return [(one, rounding * scale) for one, scale in zip(apart.tolist(), scales, strict=True)]
