"""The lens, direct attribution and causal tracing: seconds beside TransformerLens and nnsight.

python -m benchmarks.reading MODEL --out reading.json

Each asks one question of one prompt, as the tool's documentation does it, and the answers have to
agree: *lens*, the probability of the likeliest token of every layer's state at every token (of
which `lens` gives more: probability, entropy, ids and texts); *attribution*, what each head adds to
a difference of two logits at the last token (of which `attribute_logits` gives more: MLPs,
embedding and biases, which sum to it; TransformerLens' weights are folded beforehand); *tracing*,
the target's
probability with one hidden state put back in a corrupted run, layer by position, one sample (in
TransformerLens a pass for each cell), which microtome verifies. Seconds are of processor time of
one thread, medians over rounds in which all of them run. A tool that is not installed takes no
part.
"""

from __future__ import annotations

import argparse
import copy
import platform
import tempfile
from collections.abc import Callable, Mapping
from functools import reduce
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import microtome as mt
from benchmarks.turns import in_turn, keep

TEXT, SUBJECT, TARGET, CONTRAST = "Berlin is the capital of", 0, " Germany", " France"
STD = 0.1
NORMS = {"gpt2": "transformer.ln_f", "llama": "model.norm"}
"""Family → the final norm."""
OUT = {"gpt2": "attn.c_proj", "llama": "self_attn.o_proj"}
"""Family → where heads are mixed, in a block."""
CLOSE = 2e-4
"""How far apart answers in float32 may be."""


def microtome_ways(model: mt.Model) -> dict[str, Callable[[], Tensor]]:
    """Question → microtome's answer."""
    prompt = mt.Prompt(TEXT, target=TARGET, roles={"subject": SUBJECT})

    def lens() -> Tensor:
        seen = mt.lens(model, prompt, "L*.resid_post@*", metrics=["prob"], top=1)
        return torch.tensor(seen.data["top_prob"].values[0, ..., 0])

    def tracing() -> Tensor:
        traces = mt.trace_facts(model, prompt, kinds=["hidden"], samples=1, noise_std=STD)
        return torch.tensor(traces.data["prob"].values[0, 0, ..., 0])

    def attribution() -> Tensor:
        both = mt.Prompt(TEXT, target=TARGET, contrast=CONTRAST)
        return torch.tensor(mt.attribute_logits(model, both).data["head_out"].values[0])

    return {"lens": lens, "attribution": attribution, "tracing": tracing}


def noise_of(model: mt.Model) -> Tensor:
    """What `trace_facts` adds to the subject: the other tools add the same."""
    prompt = mt.Prompt(TEXT, target=TARGET, roles={"subject": SUBJECT})
    traces = mt.trace_facts(model, prompt, kinds=["hidden"], samples=1, noise_std=STD)
    std = traces.provenance["spec"]["std"]
    edit = f'noise(std={std!r}, how="add", seed=0) embed@{{{SUBJECT}}}'
    both = [model.run(prompt, edits=own, keep=["embed"])["embed"] for own in ([], [edit])]
    return torch.tensor((both[1] - both[0]).values[0, SUBJECT])


def lens_ways(model: mt.Model, noise: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Question → TransformerLens' answer, by its bridge."""
    from transformer_lens.model_bridge import TransformerBridge  # an extra that .venv does not have

    folder = folder_of(model)
    bridge = TransformerBridge.boot_transformers(folder, device="cpu")
    folded = TransformerBridge.boot_transformers(folder, device="cpu")
    folded.enable_compatibility_mode(fold_value_biases=False, disable_warnings=True)
    ids = torch.tensor([model.encode(TEXT)[0].tokens.ids])
    layers, target = (
        range(model.anatomy.dims.n_layers),
        model.encode(mt.Prompt(TEXT, target=TARGET))[0].target,
    )

    @torch.no_grad()
    def lens() -> Tensor:
        _, cache = bridge.run_with_cache(ids)
        states = torch.stack([cache[f"blocks.{n}.hook_resid_post"][0] for n in layers])
        logits = bridge.unembed(bridge.ln_final(states))
        best: Tensor = logits.softmax(-1).amax(-1)
        return best

    @torch.no_grad()
    def attribution() -> Tensor:
        _, cache = folded.run_with_cache(ids)
        heads = cache.stack_head_results(pos_slice=-1)
        other = model.encode(mt.Prompt(TEXT, target=CONTRAST))[0].target
        found = cache.logit_attrs(heads, tokens=target, incorrect_tokens=other, pos_slice=-1)
        shares: Tensor = found.reshape(len(layers), -1)
        return shares

    @torch.no_grad()
    def tracing() -> Tensor:
        _, cache = bridge.run_with_cache(ids)
        found = torch.zeros(len(layers), ids.shape[1])

        def corrupt(state: Tensor, hook: object) -> Tensor:
            state[:, SUBJECT] += noise
            return state

        for layer in layers:
            name = f"blocks.{layer}.hook_resid_post"
            for place in range(ids.shape[1]):

                def restore(
                    state: Tensor, hook: object, name: str = name, place: int = place
                ) -> Tensor:
                    state[:, place] = cache[name][:, place]
                    return state

                hooks = [("blocks.0.hook_resid_pre", corrupt), (name, restore)]
                logits = bridge.run_with_hooks(ids, fwd_hooks=hooks)
                found[layer, place] = logits[0, -1].softmax(-1)[target]
        return found

    return {"lens": lens, "attribution": attribution, "tracing": tracing}


def nnsight_ways(model: mt.Model) -> dict[str, Callable[[], Tensor]]:
    """Question → nnsight's answer."""
    import nnsight  # an extra that .venv does not have

    wrapped = nnsight.LanguageModel(copy.deepcopy(model.hf), tokenizer=model.tokenizer)
    blocks = reduce(getattr, model.anatomy.family.blocks.split("."), wrapped)
    norm = reduce(getattr, NORMS[model.hf.config.model_type].split("."), wrapped)

    @torch.no_grad()
    def lens() -> Tensor:
        with wrapped.trace(TEXT):
            kept = nnsight.save([])
            for block in blocks:
                kept.append(wrapped.lm_head(norm(block.output)).softmax(-1).amax(-1)[0])
        return torch.stack(kept)

    both = model.encode(mt.Prompt(TEXT, target=TARGET, contrast=CONTRAST))[0]
    kind, dims = model.hf.config.model_type, model.anatomy.dims

    @torch.no_grad()
    def attribution() -> Tensor:
        with wrapped.trace(TEXT):
            kept = nnsight.save([])
            for block in blocks:
                kept.append(reduce(getattr, OUT[kind].split("."), block).input[0, -1])
            last = norm.input[0, -1].save()
        own = reduce(getattr, NORMS[kind].split("."), model.hf)
        centred = last - last.mean() if kind == "gpt2" else last
        eps = own.eps if kind == "gpt2" else own.variance_epsilon
        rows = model.hf.lm_head.weight
        direction = own.weight * (rows[both.target] - rows[both.contrast])
        direction = direction / (centred.square().mean() + eps).sqrt()
        direction = direction - direction.mean() if kind == "gpt2" else direction
        found = []
        for layer, z in enumerate(kept):
            matrix = model.anatomy.out_proj(model.hf, layer).weight
            matrix = matrix if kind == "gpt2" else matrix.T
            heads = z.view(dims.n_heads, -1), (matrix @ direction).view(dims.n_heads, -1)
            found.append((heads[0] * heads[1]).sum(-1))
        return torch.stack(found)

    return {"lens": lens, "attribution": attribution}


def folder_of(model: mt.Model) -> str:
    """A directory with the model, which other tools load by themselves."""
    folder = tempfile.mkdtemp()
    model.hf.save_pretrained(folder)
    model.tokenizer.save_pretrained(folder)
    return folder


def ways(model: mt.Model) -> dict[str, dict[str, Callable[[], Tensor]]]:
    """Question → tool → what answers it."""
    noise = noise_of(model)
    tools = {"microtome": microtome_ways(model)}
    if find_spec("transformer_lens") is not None:
        tools["TransformerLens"] = lens_ways(model, noise)
    if find_spec("nnsight") is not None:
        tools["nnsight"] = nnsight_ways(model)
    return {
        question: {name: own[question] for name, own in tools.items() if question in own}
        for question in ("lens", "attribution", "tracing")
    }


def measured(named: Mapping[str, Callable[[], Tensor]], rounds: int) -> dict[str, float]:
    """Median processor seconds of each tool, over rounds in which all of them run."""
    answers = {name: way() for name, way in named.items()}  # once for warmth, and to compare
    for name, answer in answers.items():
        apart = float((answer.double() - answers["microtome"].double()).abs().max())
        if not apart <= CLOSE:
            raise SystemExit(f"{name} answers something else than microtome, by {apart:.3g}")
    return in_turn(named, rounds)


def main() -> None:
    """Measure, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    model = mt.load(asked.model, device="cpu")
    found: dict[str, Any] = {}
    for question, named in ways(model).items():
        found[question] = measured(named, asked.rounds)
        for name, seconds in found[question].items():
            ratio = seconds / found[question]["microtome"]
            print(
                f"{question:10} {name:18} {seconds:8.3f} s   {ratio:6.2f} × microtome", flush=True
            )
    where = platform.processor() or platform.machine()
    keep({"model": asked.model, "machine": where, **found}, asked.out)


if __name__ == "__main__":
    main()
