"""Attribution patching of heads as TransformerLens' own demo does it, beside microtome's.

The demo multiplies ``clean_cache - corrupted_cache`` with the gradients of the corrupted run, and
sums over positions and coordinates. Put into microtome's words: the run that is edited, and whose
gradient is taken, is the prompt; what is put into it comes from the donor.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

import microtome as mt


def against_transformer_lens(model: mt.Model, prompts: mt.Prompts, task: str) -> Iterator[str]:
    """Says how far the two are apart, and how long both took."""
    began = time.perf_counter()
    ours = mt.sweep(
        model, prompts, "patch L*.z.h*", metrics="logit_diff", method="atp", audit=1, verify=0,
        progress=False,
    ).approximate("logit_diff").values  # fmt: skip
    middle = time.perf_counter()
    bridge = _bridge(model)
    loaded = time.perf_counter()
    theirs = np.stack([_attributed(bridge, model, prompt) for prompt in prompts])
    end = time.perf_counter()
    apart, size = np.abs(ours - theirs).max(), np.abs(theirs).max()
    yield (
        f"{task}: `atp` of heads is TransformerLens' attribution patching to {apart:.1e}, of "
        f"effects up to {size:.3g}; {middle - began:.1f} s here, {end - loaded:.1f} s there."
    )


def _bridge(model: mt.Model):  # type: ignore[no-untyped-def]  # its class is imported here alone
    from transformer_lens.model_bridge import TransformerBridge

    with tempfile.TemporaryDirectory() as folder:
        model.hf.save_pretrained(folder)
        model.tokenizer.save_pretrained(folder)
        return TransformerBridge.boot_transformers(folder, device="cpu")


def _attributed(bridge, model: mt.Model, prompt: mt.Prompt) -> np.ndarray:  # type: ignore[no-untyped-def]
    """Of one prompt, ``[layer, head]``."""
    [one] = model.encode(prompt)
    assert one.donor is not None, "tasks have donors"
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(model.anatomy.dims.n_layers)]
    with torch.no_grad():
        _, donor = bridge.run_with_cache(torch.tensor([one.donor.read]), names_filter=names)
    own: dict[str, Tensor] = {}

    def keeping(name: str):  # type: ignore[no-untyped-def]
        def keep(values: Tensor, hook) -> Tensor:  # type: ignore[no-untyped-def]
            values.retain_grad()
            own[name] = values
            return values

        return keep

    logits = bridge.run_with_hooks(
        torch.tensor([one.tokens.read]), fwd_hooks=[(name, keeping(name)) for name in names]
    )
    (logits[0, -1, one.target] - logits[0, -1, one.contrast]).backward()
    found = []
    for name in names:
        slope = own[name].grad
        assert slope is not None, "it was retained"
        change = (donor[name] - own[name]).detach()
        shape = (*change.shape[:2], model.anatomy.dims.n_heads, -1)
        found.append((change * slope).reshape(shape).sum((0, 1, 3)).numpy())
    return np.stack(found)
