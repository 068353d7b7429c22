"""Interventions on GPT-2 as one would write them by hand: the oracle of the reference path.

Nothing of microtome is used. Every site is tapped elsewhere than in the package where the module
allows it: neurons at the activation function's output, attention's contribution at the attention
module, the logits at the unembedding. The residual between attention and MLP is not hooked at all:
the rest of the block is computed again from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from transformers import GPT2LMHeadModel

Op = Callable[[np.ndarray], np.ndarray]
LAYERED = (
    "resid_pre", "q", "k", "v", "z", "attn_out", "resid_mid", "mlp_post", "mlp_out", "resid_post"
)  # fmt: skip
ALL_SITES = ("embed", *LAYERED, "logits")


@dataclass(frozen=True)
class Change:
    """``op`` maps the chosen block of a site's array, an index list per axis, to new values."""

    site: str
    layer: int | None
    index: Sequence[Sequence[int]]
    op: Op


@dataclass
class Hooked:
    logits: torch.Tensor
    seen: dict[tuple[str, int | None], np.ndarray] = field(default_factory=dict)


def run(hf: GPT2LMHeadModel, ids: Sequence[int], changes: Sequence[Change] = ()) -> Hooked:
    """The logits ``[pos, vocab]`` under these changes, and every site's values after them."""
    config = hf.config
    n_heads, d_head = config.n_head, config.n_embd // config.n_head
    found = Hooked(torch.empty(0))

    def at(site: str, layer: int | None, full: torch.Tensor) -> torch.Tensor:
        array = full[0].detach().numpy().copy()
        for change in changes:
            if (change.site, change.layer) == (site, layer):
                where = np.ix_(*change.index)
                array[where] = change.op(array[where])
        found.seen[site, layer] = array
        return torch.from_numpy(array)[None]

    handles = []

    def block_input(layer):
        def hook(module, args):
            x = at("embed", None, args[0]) if layer == 0 else args[0]
            return (at("resid_pre", layer, x), *args[1:])

        return hook

    def fused(layer):
        def hook(module, args, output):
            parts = torch.chunk(output, 3, dim=2)
            shaped = (x.reshape(1, -1, n_heads, d_head) for x in parts)
            edited = [at(site, layer, x) for site, x in zip("qkv", shaped, strict=True)]
            return torch.cat([x.reshape(1, -1, n_heads * d_head) for x in edited], dim=2)

        return hook

    def head_outputs(layer):
        def hook(module, args):
            columns = args[0].reshape(1, -1, n_heads, d_head)
            return (at("z", layer, columns).reshape(args[0].shape),)

        return hook

    def attention(layer):
        def hook(module, args, output):
            return (at("attn_out", layer, output[0]), *output[1:])

        return hook

    def output_of(site, layer):
        return lambda module, args, output: at(site, layer, output)

    def block(layer):
        def hook(module, args, output):
            before = torch.from_numpy(found.seen["resid_pre", layer])[None]
            added = torch.from_numpy(found.seen["attn_out", layer])[None]
            middle = at("resid_mid", layer, added + before)
            # With the residual changed, the MLP runs again; its own hooks fire again.
            after = at("resid_post", layer, middle + module.mlp(module.ln_2(middle)))
            # Transformers 5.0 returns a tuple here, later ones the tensor.
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return hook

    try:
        for n, module in enumerate(hf.transformer.h):
            handles += [
                module.register_forward_pre_hook(block_input(n)),
                module.attn.c_attn.register_forward_hook(fused(n)),
                module.attn.c_proj.register_forward_pre_hook(head_outputs(n)),
                module.attn.register_forward_hook(attention(n)),
                module.mlp.act.register_forward_hook(output_of("mlp_post", n)),
                module.mlp.register_forward_hook(output_of("mlp_out", n)),
                module.register_forward_hook(block(n)),
            ]
        handles.append(hf.lm_head.register_forward_hook(output_of("logits", None)))
        with torch.no_grad():
            found.logits = hf(torch.tensor([list(ids)])).logits[0]
    finally:
        for handle in handles:
            handle.remove()
    return found


def everything(hf: GPT2LMHeadModel, site: str, length: int) -> list[list[int]]:
    """All indices of a site, per axis."""
    config = hf.config
    heads = [config.n_head, config.n_embd // config.n_head]
    sizes: Mapping[str, list[int]] = {
        "q": heads, "k": heads, "v": heads, "z": heads,
        "mlp_post": [4 * config.n_embd], "logits": [config.vocab_size],
    }  # fmt: skip
    return [list(range(n)) for n in (length, *sizes.get(site, [config.n_embd]))]


# ------------------------------------------------------------------------- numbers off the logits


def log_softmax(row: np.ndarray) -> np.ndarray:
    shifted = np.asarray(row, dtype=np.float64) - np.max(row)
    return shifted - np.log(np.exp(shifted).sum())
