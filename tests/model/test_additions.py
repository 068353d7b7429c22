"""Models that somebody has added to: as with hooks alone, or refused with what is on them."""

from __future__ import annotations

import functools
import types

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.activations import NewGELUActivation
from transformers.integrations.moe import ExpertsInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.models.gpt2 import modeling_gpt2

import microtome as mt
from conftest import BERLIN, LAYERS, PARIS
from foreign import theirs
from microtome.errors import EffectsError, LoadError, MicrotomeError, ProbeError, SweepError
from microtome.model.additions import adapters, additions, own_attention, own_experts, without_hooks
from oracles import families

PROMPT = mt.Prompt(BERLIN, donor=PARIS, target=" Germany", contrast=" France")
EDIT = "zero L*.z.h1@-1"


def steer(at):
    def hook(module, args, output):
        whole = output[0] if isinstance(output, tuple) else output
        moved = whole.clone()
        moved[:, at] += torch.linspace(-2, 2, whole.shape[-1], dtype=whole.dtype)
        return (moved, *output[1:]) if isinstance(output, tuple) else moved

    return hook


def before(module, args):
    return (args[0] * torch.arange(1, 33), *args[1:])


def with_names(module, args, kwargs):
    return args, {**kwargs, "input_ids": kwargs["input_ids"].flip(1)}


def louder(module, args, output):
    return type(output)(**{**output, "logits": output.logits * 2.0})


def replaced(hf):
    """As decorators do it: under the name and the module of what is wrapped."""
    own = hf.transformer.h[1].mlp.forward
    wrapping = functools.wraps(own)
    hf.transformer.h[1].mlp.forward = wrapping(lambda x: own(x) * torch.arange(x.shape[1])[:, None])


def of_its_class(hf):
    block = hf.transformer.h[1].mlp

    def forward(self, x):
        return type(self).forward(self, x).roll(1, dims=1)

    block.forward = types.MethodType(forward, block)


def noted(hf):
    own = hf.transformer.h[1].mlp.forward
    hf.transformer.h[1].mlp.forward = lambda x: own(x)


ADDED = {
    "a block, everywhere": lambda hf: hf.transformer.h[1].register_forward_hook(steer(slice(None))),
    "a block, at a position": lambda hf: hf.transformer.h[1].register_forward_hook(steer(3)),
    "a block, at the last": lambda hf: hf.transformer.h[1].register_forward_hook(steer(-1)),
    "before a block": lambda hf: hf.transformer.h[2].register_forward_pre_hook(before),
    "an MLP": lambda hf: hf.transformer.h[0].mlp.register_forward_hook(steer(2)),
    "a partial": lambda hf: hf.transformer.h[0].register_forward_hook(
        functools.partial(lambda at, *rest: steer(at)(*rest), 2)
    ),
    "the embedding": lambda hf: hf.transformer.wte.register_forward_hook(steer(1)),
    "the final norm": lambda hf: hf.transformer.ln_f.register_forward_hook(steer(-1)),
    "the body": lambda hf: hf.transformer.register_forward_hook(
        lambda module, args, out: type(out)(**{**out, "last_hidden_state": out[0] * 2})
    ),
    "the head": lambda hf: hf.lm_head.register_forward_hook(lambda module, args, out: out * 2.0),
    "the whole": lambda hf: hf.register_forward_hook(louder),
    "the ids": lambda hf: hf.register_forward_pre_hook(with_names, with_kwargs=True),
}


def by_hand(hf, ids, target, contrast):
    """Head 1 of each layer zeroed at the last token."""

    def cut(module, args):
        z = args[0].clone()
        z[:, -1, 8:16] = 0
        return (z,)

    found = np.empty(LAYERS)
    for layer in range(LAYERS):
        handle = hf.transformer.h[layer].attn.c_proj.register_forward_pre_hook(cut)
        with torch.no_grad():
            logits = hf(input_ids=ids).logits[0, -1].double()
        handle.remove()
        found[layer] = logits[target] - logits[contrast]
    return found


def wanted(model):
    [one] = model.encode(PROMPT)
    return by_hand(model.hf, torch.tensor([one.tokens.ids]), one.target, one.contrast)


@pytest.fixture(scope="module")
def plain(tiny64):
    """The same without anything on the model."""
    return wanted(tiny64)


@pytest.mark.parametrize("when", ["before load", "after load"])
@pytest.mark.parametrize("where", ADDED)
def test_hooks_act_as_with_hooks_alone(make_gpt2, tokenizer, plain, where, when):
    hf = make_gpt2(dtype=torch.float64)
    if when == "before load":
        ADDED[where](hf)
    model = mt.load(hf, tokenizer=tokenizer)
    if when == "after load":
        ADDED[where](hf)
    by_itself = wanted(model)
    assert np.abs(by_itself - plain).max() > 1e-3
    effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0)
    np.testing.assert_allclose(effects.data["logit_diff"][0], by_itself, atol=1e-12)
    assert effects.provenance["engine"]["name"] == "reference"
    assert "hook of your own" in effects.provenance["engine"]["why"]
    [there] = effects.provenance["model"]["additions"]
    assert "hook of your own" in there
    ids = torch.tensor([model.encode(PROMPT)[0].tokens.ids])
    with torch.no_grad():
        assert torch.equal(model.run(PROMPT).logits, hf(input_ids=ids).logits)
    with pytest.raises(SweepError, match=r"hook of your own.*engine='reference'"):
        mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", engine="walk")


BEHIND = ["the final norm", "the body", "the head", "the whole"]
"""Where an addition has a part in what becomes of any state that is read as the last one is."""

RUN_APART = {
    "a lens": lambda model: mt.lens(model, PROMPT),
    "translators": lambda model: mt.train_translators(model, [BERLIN, PARIS], steps=1),
    "a token's direction": lambda model: mt.steering.of_token(model, 7),
    "shares": lambda model: mt.attribute_logits(model, PROMPT),
    "neurons": lambda model: mt.attribute_neurons(model, PROMPT, 1),
    "a head's circuits": lambda model: mt.head_circuit(model, "L1.h2", tokens=5),
}


@pytest.mark.parametrize("where", BEHIND)
def test_what_runs_parts_by_themselves_is_refused_where_they_are_added_to(
    make_gpt2, tokenizer, where
):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    for read in RUN_APART.values():
        read(model)
    ADDED[where](model.hf)
    for read in RUN_APART.values():
        with pytest.raises(MicrotomeError, match=r"the model has a hook of your own .*Take it off"):
            read(model)


def test_a_function_is_in_the_way_of_what_calls_it_alone(make_gpt2, tokenizer, monkeypatch):
    """A mask is made in front of the blocks; what a norm or the whole model calls acts behind."""
    model, own = mt.load(make_gpt2(), tokenizer=tokenizer), modeling_gpt2.create_causal_mask
    monkeypatch.setattr(modeling_gpt2, "create_causal_mask", lambda **named: own(**named))
    assert [one.kind for one in model.additions] == ["function"]
    model.check_end("It is read")
    monkeypatch.setattr(nn.functional, "layer_norm", skewed)
    with pytest.raises(
        MicrotomeError, match=r"of your own \(skewed\) in the place of .*layer_norm"
    ):
        model.check_end("It is read")


def test_states_behind_a_hook_on_a_block_are_read_and_shares_are_refused(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    ADDED["a block, at the last"](model.hf)
    for read in ("a lens", "translators", "a token's direction"):
        RUN_APART[read](model)
    seen = mt.lens(model, PROMPT, metrics=["logit"]).data["logit"][0, -1].values
    [one] = model.encode(PROMPT)
    with torch.no_grad():
        logits = model.hf(input_ids=torch.tensor([one.tokens.ids])).logits[0]
    np.testing.assert_allclose(seen, logits[:, one.target], atol=1e-12)
    # What the hook adds is no writer's: they would not sum to the logit.
    for read in ("shares", "neurons", "a head's circuits"):
        with pytest.raises(MicrotomeError, match="of the model's own parts"):
            RUN_APART[read](model)


def test_what_is_written_behind_a_hook_is_what_transformers_writes(make_gpt2, tokenizer):
    """A hook at the last position acts on each token once, and on the last of a whole text."""
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    bare = model.generate(BERLIN, steps=4, do_sample=False)[0]
    ADDED["the final norm"](model.hf)
    ADDED["a block, at the last"](model.hf)
    made = model.generate(BERLIN, "zero L2.z.h0@last", steps=4, do_sample=False)[0]
    own = model.generate(BERLIN, steps=4, do_sample=False)[0]
    ids = torch.tensor([own.encoded.tokens.ids])
    whole = model.hf.generate(
        input_ids=ids, max_new_tokens=4, do_sample=False, pad_token_id=0,
        output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    assert list(own.ids) == whole.sequences[0, ids.shape[1] :].tolist()
    logprobs = torch.cat(whole.logits).double().log_softmax(-1)
    np.testing.assert_allclose(own.clean_likeliest_logprob, logprobs.max(-1).values, atol=1e-6)
    assert made.apart < 1e-9
    assert own.ids != bare.ids
    with pytest.raises(MicrotomeError, match=r"are padded, and the model has a hook .*batch=1"):
        model.generate([BERLIN, "Berlin"], steps=2, batch=2)


def sharper(module, query, key, value, mask, scaling=None, **more):
    return sdpa_attention_forward(module, query * 2, key, value, mask, scaling=scaling, **more)


def noting(module, query, key, value, mask, **more):
    return sdpa_attention_forward(module, query, key, value, mask, **more)


@pytest.fixture
def attending(monkeypatch):
    """Attention functions of one's own, by their names."""
    for one in (sharper, noting):
        monkeypatch.setitem(AttentionInterface._global_mapping, one.__name__, one)
        masks = AttentionMaskInterface._global_mapping
        monkeypatch.setitem(masks, one.__name__, AttentionMaskInterface()["sdpa"])


def test_an_attention_function_of_somebodys_own_runs_whole(make_gpt2, tokenizer, attending):
    """Chosen after the model was proved: heads are those of hooks, and weights are not made up."""
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    model.hf.set_attn_implementation("sharper")
    found = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0, progress=False)
    np.testing.assert_allclose(found.data["logit_diff"].values.ravel(), wanted(model), atol=1e-9)
    assert found.provenance["model"]["additions"] == [
        "an attention function of your own (sharper) on the model"
    ]
    for edits in ("scale(1) L1.pattern.h0", "knockout L1.pattern.h0@-1,0"):
        with pytest.raises(MicrotomeError, match=r"sharper is your own.*no weights that could be"):
            model.run(PROMPT, edits=[edits])
    with pytest.raises(ProbeError, match=r"attention function of your own \(sharper\)"):
        mt.load(model.hf, tokenizer=tokenizer)


def louder_later(module, hidden, top_k_index, top_k_weights):
    """Experts by somebody who takes the rows that they get for the positions of one text."""
    place = torch.arange(len(hidden), dtype=hidden.dtype)[:, None]
    return hidden * place * top_k_weights.sum(-1, keepdim=True)


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_a_function_of_somebodys_own_for_experts_runs_whole(tokenizer, monkeypatch, name):
    model = mt.load(families.make(name, len(tokenizer)), tokenizer=tokenizer)
    assert model.whole is None
    monkeypatch.setitem(ExpertsInterface._global_mapping, "louder", louder_later)
    assert model.whole is None  # nobody has chosen it
    model.hf.config._experts_implementation = "louder"
    assert "louder_later" in str(model.whole)
    found = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0, progress=False)
    one = model.run(PROMPT, EDIT.replace("L*", "L1")).logits[0, -1]
    target, contrast = model.encode(PROMPT)[0].target, model.encode(PROMPT)[0].contrast
    wanted = float(one[target] - one[contrast])
    assert found.data["logit_diff"].sel(layer=1).item() == pytest.approx(wanted, abs=1e-9)
    assert found.provenance["model"]["additions"] == [
        "a function of your own for experts (louder_later) on the model"
    ]


def test_one_for_experts_is_seen_with_what_earlier_transformers_say_of_them(tokenizer, monkeypatch):
    """Of all that is set on them since, 5.2 sets no more than these."""
    hf = families.make("mixtral", len(tokenizer))
    for one in hf.modules():
        if "is_transposed" in vars(one):
            for name in ("is_concatenated", "has_gate", "has_post_expert_norm"):
                vars(one).pop(name, None)
    monkeypatch.setitem(ExpertsInterface._global_mapping, "louder", louder_later)
    hf.config._experts_implementation = "louder"
    assert own_experts(hf) is louder_later


def test_a_function_for_experts_is_nothing_to_a_model_without_any(
    make_gpt2, tokenizer, monkeypatch
):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    monkeypatch.setitem(ExpertsInterface._global_mapping, "louder", louder_later)
    model.hf.config._experts_implementation = "louder"
    assert model.whole is None


def test_a_function_in_the_place_of_a_librarys_runs_whole(make_gpt2, tokenizer, monkeypatch):
    """Its code looks it up there: heads are those of hooks, and weights are not made up."""
    hf = make_gpt2(dtype=torch.float64)
    hf.set_attn_implementation("eager")
    model, own = mt.load(hf, tokenizer=tokenizer), modeling_gpt2.eager_attention_forward

    @functools.wraps(own)
    def sharp(module, query, *given, **more):
        return own(module, query * 2, *given, **more)

    monkeypatch.setattr(modeling_gpt2, "eager_attention_forward", sharp)
    found = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0, progress=False)
    np.testing.assert_allclose(found.data["logit_diff"].values.ravel(), wanted(model), atol=1e-9)
    [added] = found.provenance["model"]["additions"]
    assert added.startswith(
        "a function of your own (eager_attention_forward) in the place of trans"
    )
    with pytest.raises(MicrotomeError, match=r"eager_attention_forward is your own.*no weights"):
        model.run(PROMPT, keep=["L1.pattern"])


def test_of_a_module_whose_file_is_gone_attention_is_its_own():
    class Gone(nn.Module):
        __module__ = "gone"

    assert own_attention("eager", Gone()) is None


def test_one_that_only_looks_shows_its_weights(make_gpt2, tokenizer, attending):
    hf = make_gpt2(dtype=torch.float64)
    plain = mt.load(hf, tokenizer=tokenizer).run(PROMPT, keep=["L1.pattern"])["L1.pattern"]
    hf.set_attn_implementation("noting")
    model = mt.load(hf, tokenizer=tokenizer)
    np.testing.assert_array_equal(model.run(PROMPT, keep=["L1.pattern"])["L1.pattern"], plain)


def test_a_patch_takes_what_a_hook_on_the_whole_model_makes_of_the_donor(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    model.hf.register_forward_pre_hook(with_names, with_kwargs=True)
    edited = model.run(PROMPT, edits="patch L2.resid_post").logits
    torch.testing.assert_close(edited, model.run(PARIS).logits, rtol=0, atol=1e-12)


@pytest.mark.parametrize("change", [replaced, of_its_class, noted])
def test_a_forward_of_somebodys_own_runs_whole(make_gpt2, tokenizer, change):
    model = mt.load(make_gpt2(dtype=torch.float64), tokenizer=tokenizer)
    change(model.hf)
    effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0)
    np.testing.assert_allclose(effects.data["logit_diff"][0], wanted(model), atol=1e-12)
    assert "forward of your own" in effects.provenance["engine"]["why"]


@pytest.mark.parametrize("change", [replaced, of_its_class])
def test_at_load_it_is_refused_by_name_where_sites_are_not_what_they_are(
    make_gpt2, tokenizer, change
):
    hf = make_gpt2(dtype=torch.float64)
    change(hf)
    with pytest.raises(ProbeError, match=r"has a forward of your own .* on transformer.h.1.mlp"):
        mt.load(hf, tokenizer=tokenizer)


def test_one_that_changes_nothing_loads(make_gpt2, tokenizer):
    hf = make_gpt2(dtype=torch.float64)
    noted(hf)
    model = mt.load(hf, tokenizer=tokenizer)
    effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0)
    np.testing.assert_allclose(effects.data["logit_diff"][0], wanted(model), atol=1e-12)


class Scaled(nn.Module):
    """A block's MLP that gives other than its projection does."""

    def __init__(self, inner):
        super().__init__()
        self.c_fc, self.c_proj, self.act = inner.c_fc, inner.c_proj, inner.act

    def forward(self, x):
        return self.c_proj(self.act(self.c_fc(x))) * 3


class Louder(nn.Linear):
    """A head that does more than its weights, and other things at the first position."""

    def forward(self, x):
        logits = super().forward(x) * 2
        return logits - logits[:, :1]


class Renamed(nn.Linear):
    """A class of somebody's own that changes nothing."""


def test_a_module_that_is_at_odds_with_the_family_is_refused_by_its_name(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.transformer.h[1].mlp = Scaled(hf.transformer.h[1].mlp).eval()
    with pytest.raises(ProbeError, match=r"class of your own \(Scaled\) of transformer") as e:
        mt.load(hf, tokenizer=tokenizer)
    assert "row" not in str(e.value)


@pytest.mark.parametrize("kind", ["sequential", "subclass", "class that changes nothing"])
def test_heads_that_are_not_plain(make_gpt2, tokenizer, kind):
    hf = make_gpt2(dtype=torch.float64)
    own = hf.lm_head
    if kind == "sequential":
        hf.lm_head = nn.Sequential(own, nn.Hardtanh(-3, 3))
    else:
        hf.lm_head = (Louder if kind == "subclass" else Renamed)(32, own.out_features, bias=False)
        hf.lm_head.weight = own.weight
    hf.eval().double()
    model = mt.load(hf, tokenizer=tokenizer)
    effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", verify=0)
    np.testing.assert_allclose(effects.data["logit_diff"][0], wanted(model), atol=1e-12)
    engine = "reference" if kind == "subclass" else "walk"
    assert effects.provenance["engine"]["name"] == engine


@pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated")
def test_what_makes_weights_walks(make_gpt2, tokenizer):
    class Doubled(nn.Module):
        def forward(self, weight):
            return weight * 2

    hf = make_gpt2(dtype=torch.float64)
    parametrize.register_parametrization(hf.transformer.h[0].mlp.c_fc, "weight", Doubled())
    parametrize.register_parametrization(hf.lm_head, "weight", Doubled())
    nn.utils.weight_norm(hf.transformer.h[1].mlp.c_fc)
    hf.transformer.h[2].register_full_backward_hook(lambda *_: None)
    hf.enable_input_require_grads()
    hf.eval()(torch.tensor([[1, 2]]), output_attentions=True, output_hidden_states=True)
    model = mt.load(hf, tokenizer=tokenizer)
    assert additions(hf) == ()
    effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff", engine="walk")
    np.testing.assert_allclose(effects.data["logit_diff"][0], wanted(model), atol=1e-9)


def noisy(module, args, output):
    return (
        (output[0] + torch.randn(()), *output[1:])
        if isinstance(output, tuple)
        else (output + torch.randn(()))
    )


class Counting:
    def __init__(self):
        self.calls = 0

    def __call__(self, module, args, output):
        self.calls += 1
        return output + self.calls


class Longest:
    """What it does depends on the longest text before."""

    def __init__(self):
        self.longest = 0

    def __call__(self, module, args, output):
        self.longest = max(self.longest, output.shape[1])
        return output + 0.1 * self.longest


@pytest.mark.parametrize("make", [lambda: noisy, Counting, Longest], ids=["rng", "calls", "long"])
def test_what_differs_from_pass_to_pass_is_refused(make_gpt2, tokenizer, make):
    hf = make_gpt2()
    hf.lm_head.register_forward_hook(make())
    with pytest.raises(LoadError, match=r"Two passes.*hook of your own.*on lm_head"):
        mt.load(hf, tokenizer=tokenizer)


@pytest.mark.parametrize("make", [lambda: noisy, Counting], ids=["rng", "calls"])
def test_it_is_refused_after_load_too(make_gpt2, tokenizer, make):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    model.hf.lm_head.register_forward_hook(make())
    with pytest.raises(SweepError, match=r"Two passes.*hook of your own"):
        mt.sweep(model, PROMPT, EDIT, metrics="logit_diff")


def test_a_hook_for_longer_texts_loads_and_fails_by_name(make_gpt2, tokenizer):
    hf = make_gpt2()
    hf.transformer.h[1].register_forward_hook(steer(9))
    model = mt.load(hf, tokenizer=tokenizer)
    with pytest.raises(MicrotomeError, match=r"IndexError.*hook of your own \(steer.hook\) on tr"):
        model.run(BERLIN)
    with torch.no_grad():
        ids = torch.tensor([model.encode(2 * (BERLIN + " "))[0].tokens.ids])
        assert torch.equal(model.run(2 * (BERLIN + " ")).logits, hf(ids).logits)


def test_a_hook_in_every_module_is_named(make_gpt2, tokenizer):
    hf = make_gpt2()
    handle = nn.modules.module.register_module_forward_hook(lambda *_: None)
    try:
        model = mt.load(hf, tokenizer=tokenizer)
        effects = mt.sweep(model, PROMPT, EDIT, metrics="logit_diff")
        assert "in every module" in effects.provenance["engine"]["why"]
    finally:
        handle.remove()


def test_the_copy_without_hooks_shares_the_weights_and_leaves_the_model_alone(make_gpt2):
    hf = make_gpt2()
    hf.transformer.h[1].register_forward_hook(steer(1))
    bare = without_hooks(hf)
    assert len(additions(hf)) == 1
    assert additions(bare) == ()
    assert all(one is two for one, two in zip(hf.parameters(), bare.parameters(), strict=True))


class TestWhatDoesNotRun:
    def test_weights_on_the_meta_device(self, make_gpt2, tokenizer):
        hf = make_gpt2()
        hf.transformer.h[2].mlp.to("meta")
        with pytest.raises(LoadError, match=r"no weights: transformer.h.2.mlp.c_fc.weight is on"):
            mt.load(hf, tokenizer=tokenizer)

    def test_blocks_of_two_types(self, make_gpt2, tokenizer):
        hf = make_gpt2()
        hf.transformer.h[2].mlp.half()
        with pytest.raises(LoadError, match=r"does not run by itself.*float32, float16") as error:
            mt.load(hf, tokenizer=tokenizer)
        assert "row" not in str(error.value)

    @pytest.mark.parametrize("compile_it", [lambda hf: hf.compile(backend="eager")], ids=["whole"])
    def test_compiled_after_it_was_loaded(self, make_gpt2, tokenizer, compile_it):
        model = mt.load(make_gpt2(), tokenizer=tokenizer)
        compile_it(model.hf)
        with pytest.raises(LoadError, match=r"compiled in place"):
            model.run(BERLIN)

    def test_weights_that_went_to_the_meta_device_after_it_was_loaded(self, make_gpt2, tokenizer):
        model = mt.load(make_gpt2(), tokenizer=tokenizer)
        model.hf.to("meta")
        with pytest.raises(MicrotomeError, match=r"meta device"):
            mt.sweep(model, PROMPT, EDIT, metrics="logit_diff")

    def test_a_block_of_another_type_after_it_was_loaded(self, make_gpt2, tokenizer):
        model = mt.load(make_gpt2(), tokenizer=tokenizer)
        model.hf.transformer.h[1].half()
        for act in (
            lambda: model.run(BERLIN),
            lambda: mt.sweep(model, PROMPT, EDIT, metrics="logit_diff"),
        ):
            with pytest.raises(MicrotomeError, match=r"does not run.*float32, float16"):
                act()

    def test_a_block_that_was_taken_out_after_it_was_loaded(self, make_gpt2, tokenizer):
        model = mt.load(make_gpt2(), tokenizer=tokenizer)
        model.hf.config.n_layer = 2  # as many as a Llama would run
        with pytest.raises(MicrotomeError, match=r"3 blocks \(.* says 2\), and 3 are expected"):
            model.run(BERLIN)
        model.hf.transformer.h = model.hf.transformer.h[:-1]
        with pytest.raises(MicrotomeError, match=r"has 2 blocks, and 3 are expected"):
            model.run(BERLIN)

    def test_layers_that_share_a_part(self, make_gpt2, tokenizer):
        hf = make_gpt2()
        hf.transformer.h[1].attn = hf.transformer.h[0].attn
        with pytest.raises(ProbeError, match=r"h.0.attn and transformer.h.1.attn are one module"):
            mt.load(hf, tokenizer=tokenizer)


@pytest.mark.parametrize("edit", [EDIT, "patch L*.z.h*", "noise(std=1) L*.z.h*@-1", "shuffle L0.z"])
def test_another_default_device_and_type_make_no_difference(make_gpt2, tokenizer, edit):
    hf = make_gpt2()
    wanted = mt.sweep(mt.load(hf, tokenizer=tokenizer), PROMPT, edit, metrics=["logit_diff", "kl"])
    before = torch.get_rng_state()
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    try:
        found = mt.sweep(
            mt.load(hf, tokenizer=tokenizer), PROMPT, edit, metrics=["logit_diff", "kl"]
        )
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)
    np.testing.assert_array_equal(found.data["logit_diff"], wanted.data["logit_diff"])
    assert torch.equal(before, torch.get_rng_state())


READINGS = {
    "of_token": lambda model: mt.steering.of_token(model, " Germany")[0],
    "attribute": lambda model: mt.attribute_logits(model, PROMPT).data["head_out"],
    "scores": lambda model: mt.head_scores(model, n=1, length=4).data["induction"],
    "tuned": lambda model: mt.train_translators(model, ["a b c", "d e f"], steps=2, batch=2).bias,
    "lens": lambda model: mt.lens(model, PROMPT).data["kl"],
    "attention": lambda model: mt.attention(model, PROMPT).data["weighted"],
    "circuit": lambda model: mt.head_circuit(model, "L1.h0", tokens=5).table["rank"],
    "eap": lambda model: mt.circuits.score(model, PROMPT, method="eap", audit=2).mean,
    "written": lambda model: model.generate(PROMPT, "zero L1.z", 3, do_sample=True)[0].ids,
}


@pytest.mark.parametrize("name", READINGS)
def test_readings_know_no_default_device_either(make_gpt2, tokenizer, name):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)
    wanted = READINGS[name](model)
    torch.set_default_device("meta")
    try:
        found = READINGS[name](model)
    finally:
        torch.set_default_device(None)
    np.testing.assert_array_equal(found, wanted)


def test_how_adapters_are_set_is_recorded(make_gpt2, tokenizer):
    """Of layers as peft's are: what is active decides numbers, and no weight tells."""

    class Layer(nn.Linear):
        __module__ = "peft.tuners.lora.layer"
        active_adapters = ("default",)
        disable_adapters = False
        merged_adapters = ()

    hf = make_gpt2()
    own = hf.lm_head
    hf.lm_head = Layer(32, own.out_features, bias=False).eval()
    hf.lm_head.weight = own.weight
    model = mt.load(hf, tokenizer=tokenizer)
    on = mt.sweep(model, PROMPT, EDIT, metrics="kl").provenance["model"]["adapters"]
    hf.lm_head.disable_adapters = True
    off = mt.sweep(model, PROMPT, EDIT, metrics="kl").provenance["model"]["adapters"]
    assert on["hash"] != off["hash"]
    assert ['"off": false' in text for text in on["states"]] == [True]
    assert ['"off": true' in text for text in off["states"]] == [True]


@pytest.mark.parametrize(
    "change", [{"merged_adapters": ("default",)}, {"scaling": {"default": 0.5}}]
)
def test_adapters_that_are_merged_or_weaker_are_others(make_gpt2, change):
    hf = make_gpt2()
    vars(hf.lm_head).update(
        disable_adapters=False, active_adapters=["default"], scaling={"default": 1.0, "other": 3.0}
    )
    before = adapters(hf)
    vars(hf.lm_head).update(scaling={"default": 1.0, "other": 4.0})
    assert adapters(hf) == before, "one that is not active decides nothing"
    vars(hf.lm_head).update(change)
    assert adapters(hf)["hash"] != before["hash"]
    assert adapters(hf)["states"] != before["states"]


def test_what_a_class_of_ones_own_may_have_without_being_an_addition(make_gpt2):
    class Printed(nn.Linear):
        def __init__(self, like):
            super().__init__(like.in_features, like.out_features, bias=False)
            self.weight = like.weight

        def extra_repr(self):
            return "printed"

        def norm(self):
            return self.weight.norm()

    hf = make_gpt2()
    hf.lm_head = Printed(hf.lm_head)
    assert additions(hf) == ()


def test_what_is_wrapped_is_looked_into(make_gpt2):
    """A method bound by hand is the library's; under accelerate's wrapper may be anybody's."""
    hf = make_gpt2()
    mlp = hf.transformer.h[1].mlp
    mlp.forward = functools.partial(type(mlp).forward, mlp)
    assert additions(hf) == ()
    mlp._old_forward = lambda x: x
    [own] = additions(hf)
    assert str(own).startswith("a forward of your own (")
    assert own.path == "transformer.h.1.mlp"
    del mlp._old_forward
    attention = hf.transformer.h[0].attn
    attention._upcast_and_reordered_attn = lambda *given: given  # which its forward calls
    assert [own.path for own in additions(hf)] == ["transformer.h.0.attn"]
    del attention._upcast_and_reordered_attn
    hf.transformer.warn_if_padding_and_no_attention_mask = lambda *given: None
    assert [own.path for own in additions(hf)] == ["transformer"], "its forward calls it"
    del hf.transformer.warn_if_padding_and_no_attention_mask
    for name in ("generate", "save_pretrained", "train", "get_input_embeddings"):
        setattr(hf, name, lambda *given, **named: None)
    mlp.half = hf.generate
    assert additions(hf) == (), "no pass calls them"


def test_a_method_that_was_put_on_the_librarys_class_is_found(make_gpt2, monkeypatch):
    hf = make_gpt2()
    blocks = [f"transformer.h.{n}.mlp" for n in range(LAYERS)]
    attention = modeling_gpt2.GPT2Attention
    home = f"{attention.__module__}.GPT2Attention._upcast_and_reordered_attn"  # which forward calls
    for made, name, paths, kind in (
        (modeling_gpt2.GPT2MLP, "forward", blocks, "method"),
        (attention, "_upcast_and_reordered_attn", [home], "function"),
    ):
        own = getattr(made, name)
        with monkeypatch.context() as patched:
            patched.setattr(made, name, lambda self, x, own=own: own(self, x))
            found = additions(hf)
        assert [one.path for one in found] == paths
        assert {one.kind for one in found} == {kind}


def skewed(x, *given, own=nn.functional.layer_norm, **named):
    return own(x, *given, **named) * torch.linspace(0.5, 1, x.shape[1], dtype=x.dtype)[:, None]


PUT = {
    "of my own": ("torch.nn.functional.layer_norm", skewed),
    "that says it is the own one": (
        "torch.nn.functional.layer_norm",
        functools.wraps(nn.functional.layer_norm)(lambda *of, **how: skewed(*of, **how)),
    ),
    "with arguments given": (
        "torch.nn.functional.layer_norm",
        functools.partial(nn.functional.layer_norm, eps=0.1),
    ),
    "that is compiled": (
        "torch.nn.functional.layer_norm",
        torch.compile(nn.functional.layer_norm, backend="eager"),
    ),
    "another one of torch": ("torch.tanh", torch.sigmoid),
    "another one of transformers": (
        "transformers.models.gpt2.modeling_gpt2.GPT2MLP.forward",
        NewGELUActivation.forward,
    ),
    "of the models file": (
        "transformers.models.gpt2.modeling_gpt2.create_causal_mask",
        lambda *_, **__: None,
    ),
}


@pytest.mark.parametrize("which", PUT)
def test_a_function_in_the_place_of_the_librarys_is_found(tiny64, monkeypatch, which):
    path, put = PUT[which]
    assert additions(tiny64.hf) == ()
    monkeypatch.setattr(path, put)
    [own] = additions(tiny64.hf)
    assert (own.kind, own.path) == ("function", path)
    assert str(own).endswith(f") in the place of {path}")


@pytest.mark.parametrize("what", ["code", "closed over"])
def test_a_function_that_was_changed_in_place_is_looked_at_anew(tiny64, monkeypatch, what):
    """What is known of a kind of model holds as long as its functions are what they were."""
    monkeypatch.setattr(torch, "erf", torch.sigmoid)  # which GPT-2 does not call
    assert additions(tiny64.hf) == ()
    code = (lambda *of, **how: torch.erf(*of)).__code__
    if what == "code":
        monkeypatch.setattr(modeling_gpt2.GPT2MLP.forward, "__code__", code)
    else:
        [cell] = modeling_gpt2.GPT2Model.forward.__closure__
        other = types.FunctionType(code, vars(modeling_gpt2))
        monkeypatch.setattr(cell, "cell_contents", other)
    assert [own.path for own in additions(tiny64.hf)] == ["torch.erf"]


def test_what_is_kept_from_the_compiler_is_what_it_was(tiny64, monkeypatch):
    """Around a library's function it is that; around anybody's theirs."""
    off = torch.compiler.disable
    path = "torch.nn.functional.layer_norm"
    monkeypatch.setattr(path, off(nn.functional.layer_norm))
    monkeypatch.setattr(modeling_gpt2.GPT2MLP, "forward", off(modeling_gpt2.GPT2MLP.forward))
    monkeypatch.setattr(tiny64.hf.config, "_attn_implementation_internal", "paged|eager")
    assert additions(tiny64.hf) == ()
    for own in (off(skewed), functools.wraps(nn.functional.layer_norm)(off(skewed))):
        monkeypatch.setattr(path, own)
        assert [one.path for one in additions(tiny64.hf)] == [path]


def test_a_mask_function_of_ones_own_is_found(tiny64, monkeypatch):
    monkeypatch.setattr(AttentionMaskInterface, "get", lambda *asked: lambda **named: None)
    [own] = additions(tiny64.hf)
    assert str(own).startswith("a mask function of your own (")


def test_a_hook_that_says_it_is_the_librarys_is_found(make_gpt2):
    hf = make_gpt2()
    hf.lm_head.register_forward_hook(functools.wraps(nn.Linear.forward)(lambda *_: None))
    assert [one.kind for one in additions(hf)] == ["hook"]


def test_a_result_is_known_by_the_function_that_was_put_there(tiny64, monkeypatch, tmp_path):
    def asked(name):
        return mt.sweep(tiny64, PROMPT, EDIT, metrics="logit_diff", verify=0, out=tmp_path / name)

    asked("plain")
    monkeypatch.setattr(nn.functional, "layer_norm", skewed)
    with pytest.raises(EffectsError, match=r"added.* in the place of torch"):
        asked("plain")
    found, again = asked("skewed"), asked("skewed")
    assert again.data.equals(found.data)
    np.testing.assert_allclose(found.data["logit_diff"][0], wanted(tiny64), atol=1e-12)
    assert "(skewed) in the place of" in found.provenance["engine"]["why"]


@pytest.mark.parametrize("several", [False, True])
def test_ones_own_hook_of_accelerates_kind_is_found(make_gpt2, several):
    class Steering:
        pass

    class Sequence:
        hooks = (Steering(),)

    hf = make_gpt2()
    hf.lm_head._hf_hook = Sequence() if several else Steering()
    [own] = additions(hf)
    assert own.kind == "hook"
    assert "Steering" in str(own)


def test_the_copy_without_hooks_keeps_those_of_libraries(make_gpt2):
    # One as transformers puts on a model, to collect what is asked for.
    collecting = theirs(lambda *_: None, "transformers.utils.output_capturing")
    hf = make_gpt2()
    hf.lm_head.register_forward_hook(collecting)
    hf.lm_head.register_forward_hook(lambda *_: None)
    assert [*without_hooks(hf).lm_head._forward_hooks.values()] == [collecting]
    assert len(hf.lm_head._forward_hooks) == 2


def test_a_buffer_that_counts_passes_is_named(make_gpt2, tokenizer):
    class Counted(nn.Linear):
        def __init__(self, like):
            super().__init__(like.in_features, like.out_features, bias=False)
            self.weight = like.weight
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x):
            self.seen += 1
            return super().forward(x)

    hf = make_gpt2()
    hf.lm_head = Counted(hf.lm_head).eval()
    model = mt.load(hf, tokenizer=tokenizer)
    with pytest.raises(SweepError, match=r"changed while it was running \(lm_head.seen\)"):
        mt.sweep(model, PROMPT, EDIT, metrics="logit_diff")


def test_another_default_device_makes_no_difference_to_readings(make_gpt2, tokenizer):
    model = mt.load(make_gpt2(), tokenizer=tokenizer)

    def read():
        return [
            mt.attribute_logits(model, PROMPT).data["head_out"].values,
            mt.head_scores(model, n=2, length=4).data["induction"].values,
            mt.train_translators(model, [PROMPT, "The cat sat"], steps=1, blocks=[1]).bias.numpy(),
            mt.steering.of_token(model, " Germany")[0],
        ]

    wanted = read()
    torch.set_default_device("meta")
    try:
        found = read()
    finally:
        torch.set_default_device(None)
    for one, other in zip(found, wanted, strict=True):
        np.testing.assert_array_equal(one, other)
