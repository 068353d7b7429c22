"""How the sites of a model follow from each other: what the load-time probe holds a pass to."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from microtome.model.anatomy import Anatomy

Seen = dict[tuple[str, int | None], Tensor]
"""What a pass had at each site, by name, of each layer."""


@dataclass(frozen=True)
class Relation:
    """How a site follows from others: ``value`` should be what was ``seen`` there."""

    site: str
    text: str
    value: Tensor
    seen: Tensor


def relations(hf: PreTrainedModel, anatomy: Anatomy, seen: Seen) -> Iterator[Relation]:
    """What each site of every layer should be, by what a pass had at the others."""
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
        if "mlp_post" in at:
            projected = anatomy.mlp_adds(hf, layer, at["mlp_post"])
            found.append(("mlp_out", "what the down projection of mlp_post adds", projected))
        after = anatomy.after(hf, layer, middle + at["mlp_out"])
        found.append(("resid_post", f"{text} + mlp_out", after))
        for name, text, value in found:
            yield Relation(name, f"L{layer}: {text} is not {name}", value, at[name])
        yield Relation("z", f"L{layer}: pattern · v is not z", mixed, at["z"])
        stream = at["resid_post"]
    logits = anatomy.unembed(hf, anatomy.final(hf, stream))
    text = "the unembedding of the normed last resid_post is not logits"
    yield Relation("logits", text, logits, seen["logits", None])


def differences(found: Tensor, wanted: Tensor, eps: float = 0.0) -> list[tuple[float, float]]:
    """How far apart two are in each row, and how far rounding may take them there."""
    wanted = wanted.to(found.device)
    rounding = 64 * max(torch.finfo(found.dtype).eps, eps)
    finite = wanted.abs().masked_fill(~wanted.isfinite(), 0).flatten(1).amax(1)
    # An output bias may be minus infinity, which is as far from itself as any number: 0.
    apart = (found - wanted).abs().masked_fill(found == wanted, 0).flatten(1).amax(1)
    scales = (max(1.0, scale) for scale in finite.tolist())
    return [(one, rounding * scale) for one, scale in zip(apart.tolist(), scales, strict=True)]
