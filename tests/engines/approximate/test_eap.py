"""Edges by gradients: against hand-written hooks, on circuits, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.circuits import score
from microtome.errors import CircuitError, EditError, SweepError

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
EXACT = 1e-9
INNER = 1e-6
"""Of a model whose norms compute in float32."""
STORY = mt.Prompt(
    "Once upon a time, there was a little girl named Lily. One day,",
    donor="Once upon a time, there was a little boy named Lily. One day,",
    target=" Lily",
    contrast=" Tim",
)


def approximate(model, edit, method="eap", prompt=BERLIN):
    found = mt.sweep(model, prompt, edit, metrics="logit_diff", method=method, audit=1, verify=0)
    return found.approximate("logit_diff")


def shares(model, text, unread=False):
    """What each MLP writes, and the gradient at what each MLP reads, before its norm; by hand."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    written, read = [], []

    def forward_of(block):
        def forward(x):
            own = x.clone()
            own.retain_grad()
            read.append(own)
            return torch.nn.LayerNorm.forward(block.ln_2, own)

        return forward

    for block in model.hf.transformer.h:
        block.ln_2.forward = forward_of(block)
    hooks = [
        b.mlp.register_forward_hook(lambda *a: written.append(a[2])) for b in model.hf.transformer.h
    ]
    try:
        logits = model.hf(input_ids=ids).logits[0, -1]
        words = (model.tokenizer(w)["input_ids"][0] for w in (BERLIN.target, BERLIN.contrast))
        target, contrast = words
        (logits[target] - logits[contrast]).backward()
    finally:
        for block, hook in zip(model.hf.transformer.h, hooks, strict=True):
            del block.ln_2.forward
            hook.remove()
        model.hf.zero_grad(set_to_none=True)
    slopes = [torch.zeros_like(r[0]) if unread and r.grad is None else r.grad[0] for r in read]
    return [w.detach()[0] for w in written], slopes


def test_an_edge_is_the_writers_change_times_the_gradient_at_the_reader(tiny64):
    ours, slope = shares(tiny64, BERLIN.text)
    theirs, _ = shares(tiny64, BERLIN.donor)
    found = approximate(tiny64, "patch L*.mlp_out -> L*.mlp_in").sel(prompt=0)
    for writer in range(3):
        for reader in range(3):
            got = float(found.sel(from_layer=writer, layer=reader))
            if reader <= writer:
                assert np.isnan(got)
                continue
            wanted = float(((theirs[writer] - ours[writer]) * slope[reader]).sum())
            assert abs(got - wanted) < EXACT


def test_positions_may_be_apart(tiny64):
    whole = approximate(tiny64, "patch L*.z.h* -> L*.v_in.h*")
    each = approximate(tiny64, "patch L*.z.h*@* -> L*.v_in.h*")
    assert np.abs(each.sum("from_pos", skipna=False) - whole).max() < EXACT


def test_one_step_is_the_gradient_of_the_prompts_own_run(tiny64):
    edit = "patch L*.mlp_out -> final_in"
    gap = approximate(tiny64, edit, mt.EAPIG(1)) - approximate(tiny64, edit)
    assert np.abs(gap).max() < EXACT


def test_over_activations_each_part_goes_its_way_in_turn(tiny64):
    """By hand: the input, the heads of a layer, an MLP replaced by a mixture of both runs' own."""
    hf, blocks = tiny64.hf, tiny64.hf.transformer.h
    ways = [(hf.transformer.drop, "output")]
    for block in blocks:
        ways += [(block.attn.c_proj, "input"), (block.mlp, "output")]

    def hooked(module, side, act):
        if side == "output":
            return module.register_forward_hook(lambda _, args, out: act(out))
        return module.register_forward_pre_hook(lambda _, args: (act(args[0]),))

    def values_of(text):
        found = []
        hooks = [hooked(*way, lambda one: (found.append(one.detach()), one)[1]) for way in ways]
        theirs, _ = shares(tiny64, text)
        for hook in hooks:
            hook.remove()
        return found, theirs

    ours, own = values_of(BERLIN.text)
    donors, theirs = values_of(BERLIN.donor)
    total, steps = [0.0] * 3, 3
    for way, mine, other in zip(ways, ours, donors, strict=True):
        for step in range(1, steps + 1):
            mixed = other + step / steps * (mine - other)
            hook = hooked(*way, lambda one, mixed=mixed: mixed)
            slopes = shares(tiny64, BERLIN.text, unread=True)[1]
            hook.remove()
            total = [one + slope for one, slope in zip(total, slopes, strict=True)]
    method = mt.EAPIG(steps, over="activations")
    found = approximate(tiny64, "patch L*.mlp_out -> L*.mlp_in", method).sel(prompt=0)
    for writer in range(3):
        for reader in range(writer + 1, 3):
            slope = total[reader] / (len(ways) * steps)
            wanted = float(((theirs[writer] - own[writer]) * slope).sum())
            assert abs(float(found.sel(from_layer=writer, layer=reader)) - wanted) < EXACT
    with pytest.raises(EditError, match="must be 'inputs'"):
        mt.EAPIG(over="weights")


@pytest.mark.parametrize("steps", [1, 5])
def test_the_input_goes_from_the_donors_to_the_prompts_own_in_equal_steps(real_models, steps):
    """By hand on a trained Llama with shared keys, through its own ``inputs_embeds``."""
    model = mt.load(real_models / "stories260K", dtype="float64")
    hf, blocks = model.hf, model.hf.model.layers
    [one] = model.encode(STORY)
    ours, theirs = (torch.tensor([text.ids]) for text in (one.tokens, one.donor))
    written, probes = [], {}

    def probing(name):
        def probe(_, args):
            probes[name] = torch.zeros_like(args[0], requires_grad=True)
            return (args[0] + probes[name],)

        return probe

    readers = {"logits": hf.model.norm}
    hooks = []
    for layer, block in enumerate(blocks):
        readers |= {f"m{layer}": block.post_attention_layernorm, f"a{layer}": block.input_layernorm}
        hooks.append(block.mlp.register_forward_hook(lambda *a: written.append(a[2].detach())))
    hooks += [module.register_forward_pre_hook(probing(n)) for n, module in readers.items()]
    try:
        own, donor = (hf.model.embed_tokens(ids).detach() for ids in (ours, theirs))
        hf(ours), hf(theirs)
        each = len(blocks)
        changes = {f"m{n}": written[each + n] - written[n] for n in range(each)}
        changes["input"] = donor - own
        slopes = dict.fromkeys(readers, 0.0)
        for k in range(1, steps + 1):
            there = donor + k / steps * (own - donor)
            logits = hf(inputs_embeds=there).logits[0, -1]
            score = logits[one.target] - logits[one.contrast]
            names = [*probes]
            found = torch.autograd.grad(score, [probes[name] for name in names])
            for name, slope in zip(names, found, strict=True):
                slopes[name] = slopes[name] + slope / steps
    finally:
        for hook in hooks:
            hook.remove()
    scores = mt.circuits.score(model, STORY, method=mt.EAPIG(steps), audit=1, progress=False)
    approximate = scores.data["approximate"][0].to_series()
    layers = {**{f"m{n}": n for n in range(each)}, "input": -1}
    for writer, change in changes.items():
        for reader, slope in slopes.items():
            if reader == "logits" or int(reader[1:]) > layers[writer]:
                # What all heads of a layer read is one stream.
                into = rf"^{writer}->{reader}(\.|$)"
                got = approximate[approximate.index.str.match(into)].sum()
                assert abs(got + float((change * slope).sum())) < INNER


def test_circuits_are_scored_by_it(tiny64):
    exact, rough = (
        score(tiny64, BERLIN, method=method, progress=False) for method in ("exact", mt.EAP())
    )
    assert rough.data.attrs["method"] == "eap"
    assert len(rough) == len(exact)
    assert np.corrcoef(rough.mean, exact.mean)[0, 1] > 0.8
    again = score(tiny64, BERLIN, method="eap", progress=False)
    assert np.array_equal(again.mean, rough.mean)
    nodes = score(tiny64, BERLIN, method="atp", level="node", progress=False)
    assert len(nodes) == 1 + 3 * 5
    with pytest.raises(CircuitError, match="there are: exact, removal, atp"):
        score(tiny64, BERLIN, method="eat", progress=False)


def test_what_it_cannot_do_is_refused(tiny64):
    with pytest.raises(SweepError, match="is of edges, and 'zero L"):
        approximate(tiny64, "zero L*.z.h*")
    with pytest.raises(SweepError, match="use EAP"):
        approximate(tiny64, "patch L*.z.h* -> L*.mlp_in", "atp")
    with pytest.raises(SweepError, match="is made on a path"):
        approximate(tiny64, "patch L0.z.h* => final_in")
    with pytest.raises(SweepError, match="has no donor"):
        approximate(
            tiny64,
            "zero L*.z.h* -> final_in",
            "eap_ig",
            mt.Prompt("The cat", target=" sat", contrast=" on"),
        )
    longer = mt.Prompt("The cat sat", donor=BERLIN.text, target=" on", contrast=" is")
    with pytest.raises(SweepError, match="they are 5 and 3 tokens long"):
        approximate(tiny64, "zero L*.z.h*@last -> final_in", "eap_ig", longer)
    with pytest.raises(SweepError, match="one step at least"):
        mt.EAPIG(0)
