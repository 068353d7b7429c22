"""Attribution patching: against autograd by hand, and against small steps through the walk."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import microtome as mt
from microtome.errors import MetricError, MicrotomeError, SweepError
from microtome.model.devices import numbers
from microtome.plan.plan import make_plan
from microtome.verbs.sweep import asking

BERLIN = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" is"
)
CAT = mt.Prompt("The cat sat", donor="The dog sat", target=" on", contrast=" mat")
EXACT = 1e-9


def approximate(model, prompts, edits, metrics="logit_diff", method="atp", **more):
    return mt.sweep(model, prompts, edits, metrics=metrics, method=method, audit=1, **more)


def gradient_by_hand(model, text, prompt):
    """Of target − contrast, at the last token, at each z: ``[layer, pos, head, d_head]``."""
    ids = torch.tensor([model.tokenizer(text)["input_ids"]])
    target, contrast = (
        model.tokenizer(word)["input_ids"][0] for word in (prompt.target, prompt.contrast)
    )
    seen = []

    def keep(_, args):
        args[0].retain_grad()
        seen.append(args[0])

    hooks = [b.attn.c_proj.register_forward_pre_hook(keep) for b in model.hf.transformer.h]
    try:
        logits = model.hf(input_ids=ids).logits[0, -1]
        (logits[target] - logits[contrast]).backward()
    finally:
        for hook in hooks:
            hook.remove()
        model.hf.zero_grad(set_to_none=True)
    shape = (1, ids.shape[1], 4, -1)
    values = np.concatenate([x.detach().reshape(shape).numpy() for x in seen])
    return values, np.concatenate([x.grad.reshape(shape).numpy() for x in seen])


@pytest.mark.parametrize("at", ["clean", "donor"])
def test_a_patch_is_its_change_times_the_gradient_of_the_run_that_is_named(tiny64, at):
    ours, slope = gradient_by_hand(tiny64, BERLIN.text, BERLIN)
    theirs, of_donor = gradient_by_hand(tiny64, BERLIN.donor, BERLIN)
    wanted = ((theirs - ours) * (slope if at == "clean" else of_donor)).sum(-1)
    found = approximate(tiny64, BERLIN, "patch L*.z.h*@*", method=mt.AtP(at=at))
    effect = found.approximate("logit_diff").transpose("prompt", "layer", "pos", "head")
    assert np.abs(effect.values[0] - wanted).max() < EXACT


def test_every_edit_is_its_own_change_times_the_gradient(tiny64):
    values, slope = gradient_by_hand(tiny64, BERLIN.text, BERLIN)
    for text in (
        "zero L*.z.h*",
        "mean L*.z.h*",
        'mean(over="positions") L*.z.h*',
        "scale(-0.3) L*.z.h*",
        "noise(std=0.5, seed=3) L*.z.h*",
        'noise(how="add", seed=3) L*.z.h*',
        "add(0.25) L*.z.h*",
        "replace(2) L*.z.h*",
        "shuffle(1) L*.z.h*",
    ):
        found = approximate(tiny64, BERLIN, text).approximate("logit_diff").values[0]
        for layer, head in ((0, 1), (2, 3)):
            one = text.replace("L*", f"L{layer}").replace("h*", f"h{head}")
            kept = tiny64.run(BERLIN, edits=[one], keep=[f"L{layer}.z"])
            after = kept[f"L{layer}.z"].values[0]
            change = (after - values[layer])[:, head]
            assert abs((change * slope[layer, :, head]).sum() - found[layer, head]) < EXACT


def test_a_mean_over_prompts_is_one_too(tiny64):
    prompts = [BERLIN, mt.Prompt(BERLIN.donor, target=" France", contrast=" is")]
    found = approximate(tiny64, prompts, 'mean(over="prompts") L*.z.h*')
    runs = [gradient_by_hand(tiny64, one.text, one) for one in prompts]
    mean = (runs[0][0] + runs[1][0]) / 2
    for row, (values, slope) in enumerate(runs):
        wanted = ((mean - values) * slope).sum((1, 3))
        assert np.abs(found.approximate("logit_diff").values[row] - wanted).max() < EXACT


SEVERAL = {
    "one token": BERLIN,
    "several tokens": mt.Prompt("Berlin is the", target=" capital of Germany", contrast=" cat sat"),
    "any of a set": mt.Prompt("Berlin is the", targets=[" capital", " cat"], contrast=" is"),
}


@pytest.mark.parametrize("prompt", SEVERAL.values(), ids=SEVERAL)
def test_every_metric_has_its_own_gradient(tiny64, prompt):
    metrics = ["logit_diff", "prob", "logprob", "loss", "prob(contrast)"]
    metrics += ["logit", "logit@1"] if prompt is BERLIN else []
    edit, step = [mt.add("L*.mlp_post.n{1,5}", 1.0)], 1e-3
    found = approximate(tiny64, prompt, edit, metrics)
    steps = [step, -step, step / 2, -step / 2]
    small = mt.sweep(tiny64, prompt, edit, metrics=metrics, over={"vector": steps}, verify=0)
    for metric in metrics:
        v = {h: small.data[metric].sel(vector=h).values for h in steps}
        narrow, wide = (v[step / 2] - v[-step / 2]) / step, (v[step] - v[-step]) / (2 * step)
        wanted, size = (4 * narrow - wide) / 3, np.abs(wide).max()
        assert size > 1e-9, "the probability of several tokens is small"
        gap = np.abs(found.approximate(metric).values - wanted).max()
        assert gap < min(EXACT, 1e-6 * size), metric


def test_donors_are_aligned_as_the_edit_says(tiny64):
    prompt = mt.Prompt(
        "The cat sat on the mat",
        donor="When the dog sat on the cat",
        target=" and",
        contrast=" is",
        roles={"who": (" cat", " dog")},
    )
    edit = 'patch(align="words") L*.resid_pre@{3,4}'
    found = approximate(tiny64, prompt, edit, method=mt.AtP(at="donor"))
    alone = mt.Prompt(prompt.donor, target=" and", contrast=" is")
    ours = tiny64.run(prompt, keep=["L1.resid_pre"])["L1.resid_pre"].values[0]
    theirs = tiny64.run(alone, keep=["L1.resid_pre"])["L1.resid_pre"].values[0]
    # The gradient, coordinate by coordinate, from the effect of adding 1 there.
    slope = approximate(tiny64, alone, "add(1) L*.resid_pre.d*@*").approximate("logit_diff")
    slope = slope.sel(prompt=0, layer=1).transpose("pos", "d").values
    wanted = sum(((theirs[b] - ours[a]) * slope[b]).sum() for a, b in ((3, 4), (4, 5)))
    assert abs(found.approximate("logit_diff").values[0, 1] - wanted) < EXACT


def test_prompts_of_several_lengths_and_little_memory_give_the_same(tiny64):
    prompts = [
        BERLIN,
        CAT,
        mt.Prompt("The dog sat", donor="The cat sat", target=" on", contrast=" of"),
    ]
    edits = ["patch L*.z.h*@*", "zero L*.mlp_post.n{0,1}@0"]
    whole = approximate(tiny64, prompts, edits)
    assert whole.approximate("logit_diff").isnull().sum() == 2 * 2 * 3 * 4  # shorter ones lack two
    for row, prompt in enumerate(prompts):
        alone = approximate(tiny64, prompt, edits).approximate("logit_diff")
        own = whole.approximate("logit_diff").isel(prompt=row, pos=slice(alone.sizes["pos"]))
        assert np.abs(own.values - alone.values[0]).max() < EXACT
    little = approximate(tiny64, prompts, edits, memory="2MB")
    gap = little.approximate("logit_diff") - whole.approximate("logit_diff")
    assert np.abs(gap).max() < EXACT
    with pytest.raises(SweepError, match="the gradients of a prompt of 3 tokens need"):
        approximate(tiny64, prompts, edits, memory=10_000)


def test_parameters_are_an_axis(tiny64):
    found = approximate(tiny64, CAT, "scale(0) L*.z.h*", over={"factor": [0.0, 0.5]})
    effect = found.approximate("logit_diff")
    assert effect.dims == ("prompt", "layer", "head", "factor")
    assert np.abs(effect.sel(factor=0.0) - 2 * effect.sel(factor=0.5)).max() < EXACT


def test_one_layer_one_head_one_token(make_gpt2, tokenizer):
    hf = make_gpt2(dtype=torch.float64, n_layer=1, n_head=1, n_embd=4)
    model = mt.load(hf, tokenizer=tokenizer)
    prompt = mt.Prompt("Berlin", target=" is", contrast=" of")
    found = approximate(model, prompt, "zero L*.z.h*@*")
    assert found.approximate("logit_diff").shape == (1, 1, 1, 1)


@pytest.mark.parametrize(
    ("edits", "metrics", "method", "words"),
    [
        ("zero L*.z.h*", "kl", "atp", "approximate kl: without edits it has its best value"),
        ("zero L*.z.h*", "rank", "atp", "Measure logit, logit_diff, prob, logprob, loss"),
        ("zero L*.z.h*", "logit_corr", "atp", "its gradient there is 0"),
        ("zero L*.z.h*", "norm(L*.resid_post)", "atp", "is inside the model"),
        ("zero logits@-1", "prob", "atp", "edits the output itself"),
        ('apply("torch:sign") L*.z.h*', "prob", "atp", "a function of the user's own"),
        ("zero L*.z.h*", "prob", "atp(at='donor')", "takes nothing from a donor"),
        (["zero L*.z.h*", "scale(2) L*.z.h1"], "prob", "atp", "change the same values"),
        (["zero L1.q_in.h1", "zero L1.q.h1"], "prob", "atp", "change the same values"),
        (["zero L1.resid_post@1", "zero L2.resid_pre@{1,2}"], "prob", "atp", "change the same"),
        (["zero embed@1", "scale(2) L*.resid_pre@1"], "prob", "atp", "change the same values"),
        (["zero L2.resid_post@-1", "zero final_in@-1"], "prob", "atp", "change the same values"),
        (
            ["knockout L1.pattern.h0@-1,0", "knockout L1.pattern.h0@-1,1"],
            "prob",
            "atp",
            "change the same values",
        ),
        ("zero L*.z.h*", "prob", "atp2", "method='atp2' does not exist.*Did you mean 'atp'"),
        ("zero L*.z.h*", "prob", "atp(where=1)", r"has other parameters: atp\(at=\"clean\"\)"),
        ("zero L*.z.h*", "prob", "atp(at='x')", "must be 'clean' | 'donor'"),
        ("zero L*.z.h*", "prob", 3, "method=3: give exact, atp"),
    ],
)
def test_what_says_nothing_is_refused_with_what_to_do(tiny64, edits, metrics, method, words):
    with pytest.raises((SweepError, MetricError, MicrotomeError), match=words):
        approximate(tiny64, BERLIN, edits, metrics, method=method)


def test_different_places_of_one_site_may_be_edited_together(tiny64):
    for pair in (
        ("zero L1.z.h0", "scale(2) L1.z.h1"),
        ("zero L1.resid_post@1", "zero L2.resid_pre@2"),
        ("zero L1.resid_pre@1", "zero L1.resid_post@1"),
        ("knockout L1.pattern.h0@-1,0", "knockout L1.pattern.h1@-1,0"),
        ("knockout L1.pattern.h0@-1,0", "knockout L1.pattern.h0@1,0"),
    ):
        both = approximate(tiny64, CAT, [*pair]).approximate("logit_diff")
        each = [approximate(tiny64, CAT, one).approximate("logit_diff") for one in pair]
        assert np.abs(both - sum(each)).max() < EXACT, pair


def test_nothing_is_left_on_the_model(tiny64):
    wanted = [weight.requires_grad for weight in tiny64.hf.parameters()]
    before = tiny64.run(BERLIN).logits
    for grad in (True, False):
        with torch.set_grad_enabled(grad):
            approximate(tiny64, BERLIN, "zero L*.z.h*")
            assert torch.is_grad_enabled() is grad
    assert [weight.requires_grad for weight in tiny64.hf.parameters()] == wanted
    assert all(weight.grad is None for weight in tiny64.hf.parameters())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in tiny64.hf.modules())
    assert torch.equal(tiny64.run(BERLIN).logits, before)
    with torch.inference_mode(), pytest.raises(MicrotomeError, match="inference_mode is on"):
        approximate(tiny64, BERLIN, "zero L*.z.h*")


def test_what_ran_in_inference_mode_before_is_no_harm(make_gpt2, tokenizer, tiny64):
    """Numbers on a device are kept, and those of inference mode could not be differentiated by."""
    with torch.inference_mode():
        assert not numbers(torch.device("cpu"), [3, 1_000_003]).is_inference()
        made = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    approximate(tiny64, BERLIN, "zero L*.z.h*")
    with pytest.raises(MicrotomeError, match=r"was made in torch\.inference_mode"):
        approximate(made, BERLIN, "zero L*.z.h*")
    with pytest.raises(MicrotomeError, match=r"was made in torch\.inference_mode"):
        mt.train_translators(made, [BERLIN, "The cat sat"], steps=1)


def test_weights_that_ask_for_no_gradient_make_no_difference(make_gpt2, tokenizer, tiny64):
    hf = make_gpt2(dtype=torch.float64)
    hf.requires_grad_(False)
    frozen = mt.load(hf, tokenizer=tokenizer)
    found, wanted = (
        approximate(m, BERLIN, "zero L*.resid_pre@*").approximate("logit_diff")
        for m in (frozen, tiny64)
    )
    assert np.abs(found - wanted).max() < EXACT
    assert not any(weight.requires_grad for weight in hf.parameters())


def test_half_precision_has_the_gradients_of_its_weights_in_float32(make_gpt2, tokenizer):
    half = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    single = mt.load(make_gpt2(dtype=torch.bfloat16).float(), tokenizer=tokenizer)
    found, wanted = (
        approximate(m, BERLIN, "zero L*.z.h*").approximate("logit_diff") for m in (half, single)
    )
    assert np.abs(found - wanted).max() < 1e-5
    assert half.dtype == torch.bfloat16


def test_a_plan_counts_passes_and_not_cells(tiny64):
    costs = [
        make_plan(asking(tiny64, BERLIN, edit, metrics=["prob", "loss"]), method=mt.AtP()).cost
        for edit in ("zero L*.z.h*", "zero L*.mlp_post.n*@*")
    ]
    assert costs[0].passes == costs[1].passes == 1 + 2 * 2


@pytest.mark.parametrize("site", ["k", "v"])
def test_a_heads_own_key_is_its_groups_and_no_other_groups(of_family, site):
    """Of 4 heads and 2 groups: what changes the group's key changes its heads', which add up to no
    more than that."""
    model = of_family("llama")
    dims = model.anatomy.dims
    each = dims.n_heads // dims.n_kv_heads
    assert each > 1
    group = f"zero L1.{site}.h1@1"
    for pair in ([group, f"zero L1.{site}_head.h{each}@1"], [f"zero L1.{site}_head.h*", group]):
        with pytest.raises(SweepError, match="change the same values"):
            approximate(model, CAT, pair)
    for other in (f"zero L1.{site}_head.h{each - 1}@1", f"zero L1.{site}_head.h{each}@2"):
        both = approximate(model, CAT, [group, other]).approximate("logit_diff")
        own = [approximate(model, CAT, one).approximate("logit_diff") for one in (group, other)]
        assert np.abs(both - sum(own)).max() < EXACT


def test_at_the_donors_run_the_answer_is_read_behind_the_donors_text(tiny64):
    """Of several tokens: the gradient of the logarithms of all, each behind those before it."""
    prompt = mt.Prompt("Berlin is the", donor="Paris is the", target=" capital of Germany")
    hf, words = tiny64.hf, tiny64.tokenizer(" capital of Germany")["input_ids"]
    seen = []

    def keep(_, args):
        args[0].retain_grad()
        seen.append(args[0])

    def run(text):
        seen.clear()
        ids = tiny64.tokenizer(text)["input_ids"]
        modules = [block.attn.c_proj for block in hf.transformer.h]
        hooks = [one.register_forward_pre_hook(keep) for one in modules]
        logprobs = hf(input_ids=torch.tensor([ids + words])).logits[0].log_softmax(-1)
        total = sum(logprobs[len(ids) - 1 + n, word] for n, word in enumerate(words))
        total.backward()
        for hook in hooks:
            hook.remove()
        hf.zero_grad(set_to_none=True)
        shape = (len(seen), len(ids), 4, -1)
        own = torch.cat([one.detach() for one in seen])[:, : len(ids)]
        slope = torch.cat([one.grad for one in seen])[:, : len(ids)]
        return own.reshape(shape).numpy(), slope.reshape(shape).numpy()

    (ours, _), (theirs, slope) = run(prompt.text), run(prompt.donor)
    wanted = ((theirs - ours) * slope).sum((1, 3))
    found = approximate(tiny64, prompt, "patch L*.z.h*", "logprob", mt.AtP(at="donor"))
    assert np.abs(found.approximate("logprob").values[0] - wanted).max() < EXACT
