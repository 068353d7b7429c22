"""Which heads of SmolLM2 say who gets the gift, and are they name movers?

python examples/name_movers.py OUT_DIRECTORY [PROMPTS]

Three questions, each over the same prompts: which heads' outputs at the last token carry the
answer (patch), what these heads look at (attention weights), and whether that look is what they do
it with (knockout). Writes ``heads.png``, and prints a table.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np
import torch

import microtome as mt
from microtome.figures import save

ROLES = ("IO", "S1", "S2")
"""Who gets the gift; who gives it, where they are named first; and where they are named again."""


@dataclass(frozen=True)
class Head:
    """One head, and means over prompts.

    Attributes:
        layer, head: which.
        effect: change of the logit difference when its output at the last token is the donor's.
        attends: the last token's attention to each role.
        writes: what it adds to the logit difference itself, by way of no other part.
    """

    layer: int
    head: int
    effect: mt.stats.Interval
    p: float
    attends: dict[str, float]
    writes: float

    @property
    def looks_at(self) -> str:
        """The role that it attends to most."""
        return max(self.attends, key=lambda role: self.attends[role])


def asked(model: mt.Model, n: int = 50) -> mt.Prompts:
    """The prompts, in the model's own tokens; the donor has the other of the two give."""
    return mt.tasks.ioi(n, seed=0, tokenizer=model.tokenizer)


def patched(model: mt.Model, prompts: mt.Prompts) -> mt.Effects:
    """Every head's output at the last token, from the donor."""
    return mt.sweep(model, prompts, mt.patch("L*.z.h*@-1"), metrics=["logit_diff"])


def strongest(model: mt.Model, prompts: mt.Prompts, effects: mt.Effects, n: int = 10) -> list[Head]:
    """The n heads with the largest mean effects, those first, and what they look at."""
    delta = effects.delta("logit_diff")
    test = mt.stats.max_statistic(delta)
    means = delta.mean("prompt").stack(cell=("layer", "head"))
    chosen = [
        (int(layer), int(head))
        for layer, head in means.sortby(lambda x: -abs(x)).cell.values[:n].tolist()
    ]
    layers = sorted({layer for layer, _ in chosen})
    keep = [f"L{layer}.{site}" for layer in layers for site in ("pattern", "z")]
    last = model.anatomy.dims.n_layers - 1
    run = model.run(prompts, keep=[*keep, f"L{last}.resid_post"])
    return [
        Head(
            layer,
            head,
            mt.stats.bootstrap(delta.sel(layer=layer, head=head).values),
            float(test.p.sel(layer=layer, head=head)),
            attention(run, layer, head),
            written(model, run, layer, head),
        )
        for layer, head in chosen
    ]


def attention(run: mt.Run, layer: int, head: int) -> dict[str, float]:
    """A head's mean attention from the last token to each role."""
    weights = run[f"L{layer}.pattern"].sel(head=head).values
    seen = {
        role: [
            weights[n, len(one.tokens) - 1, one.tokens.role(role)]
            for n, one in enumerate(run.encoded)
        ]
        for role in ROLES
    }
    return {role: float(np.mean(values)) for role, values in seen.items()}


@torch.no_grad()
def written(model: mt.Model, run: mt.Run, layer: int, head: int) -> float:
    """What a head's output adds to the logit difference, through the final norm as it is."""
    dims, last = model.anatomy.dims, model.anatomy.dims.n_layers - 1
    block = model.hf.get_submodule(f"model.layers.{layer}.self_attn.o_proj")
    columns = block.weight[:, head * dims.d_head : (head + 1) * dims.d_head]
    unembed, norm = model.hf.get_output_embeddings().weight, model.hf.model.norm
    kept = run[f"L{layer}.z"].sel(head=head).values
    stream = run[f"L{last}.resid_post"].values
    found = []
    for n, one in enumerate(run.encoded):
        end = len(one.tokens) - 1
        size = torch.tensor(stream[n, end]).pow(2).mean().add(norm.variance_epsilon).sqrt()
        added = columns @ torch.tensor(kept[n, end]) / size * norm.weight
        found.append(float(added @ (unembed[one.target] - unembed[one.contrast])))
    return float(np.mean(found))


def knocked_out(model: mt.Model, prompts: mt.Prompts, layer: int, role: str) -> mt.Effects:
    """The last token's attention to a role, taken from each head of a layer by itself."""
    edit = mt.knockout(f"L{layer}.pattern.h*@-1,{role}")
    return mt.sweep(model, prompts, edit, metrics=["logit_diff"])


def main() -> None:
    """Compute, draw and print."""
    out, n = sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 50
    model = mt.load("smollm2")
    prompts = asked(model, n)
    effects = patched(model, prompts)
    save(effects.figure("logit_diff"), out, "heads")
    clean = effects.data["clean_logit_diff"]
    print(f"clean: {float(clean.mean()):.2f}, right in {int((clean > 0).sum())} of {n}")
    print(mt.stats.max_statistic(effects.delta("logit_diff")))
    heads = strongest(model, prompts, effects)
    looks = sorted({(one.layer, one.looks_at) for one in heads})
    cut = {
        (layer, role): knocked_out(model, prompts, layer, role).delta("logit_diff")
        for layer, role in looks
    }
    for one in heads:
        attends = ", ".join(f"{role} {weight:.2f}" for role, weight in one.attends.items())
        without = mt.stats.bootstrap(cut[one.layer, one.looks_at].sel(head=one.head).values)
        print(
            f"{one.layer}.{one.head}: patch {one.effect}, p {one.p:.1g} corrected; "
            f"attends {attends}; writes {one.writes:+.2f}; without its look at {one.looks_at} "
            f"{without}"
        )


if __name__ == "__main__":
    main()
