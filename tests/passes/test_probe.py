"""The load-time probe: a row of the table that is wrong in any place is found out."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from foreign import theirs
from microtome.errors import ProbeError
from microtome.model.anatomy import Anatomy
from microtome.model.families.gpt2 import GPT2
from microtome.model.families.taps import Tap, View, heads, stacked, whole
from microtome.passes import probed_sites
from microtome.passes.probe import probe

BLOCK = "transformer.h.{layer}"


def turned(view: View) -> View:
    """Heads interleaved: a view of the right shape whose two axes are laid out the other way."""
    return lambda x, dims: view(x, dims).flatten(-2).unflatten(-1, (dims.d_head, -1)).mT


def anatomy_with(hf, **taps: Tap) -> Anatomy:
    return Anatomy.by(GPT2.tapped(**taps), hf.config)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_healthy_model_passes(make_gpt2, dtype, attention):
    hf = make_gpt2(dtype=dtype, attn_implementation=attention)
    probe(hf, Anatomy.of(hf))


def test_a_model_as_initialised_passes(make_gpt2):
    hf = make_gpt2()
    hf.apply(hf._init_weights)
    probe(hf, Anatomy.of(hf))


def test_the_probe_leaves_the_model_and_the_random_numbers_alone(make_gpt2):
    hf = make_gpt2()
    before = {name: weight.clone() for name, weight in hf.state_dict().items()}
    state = torch.get_rng_state()
    probe(hf, Anatomy.of(hf))
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(weight, before[name]) for name, weight in hf.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in hf.modules())


# Each breaks one row of the table in a way that a typing mistake or a changed module would.
WRONG = {
    "embed is the norm's input": {"embed": Tap(f"{BLOCK}.ln_1".format(layer=0), "input")},
    "embed is the next block's": {"embed": Tap("transformer.h.1", "input")},
    "resid_pre is the norm's input": {"resid_pre": Tap(f"{BLOCK}.ln_1", "input")},
    "resid_pre is the norm's output": {"resid_pre": Tap(f"{BLOCK}.ln_1", "output")},
    "resid_pre is the block's output": {"resid_pre": Tap(BLOCK, "output")},
    "q is k": {"q": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("k"))},
    "q is v": {"q": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("v"))},
    "k is q": {"k": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("q"))},
    "k is v": {"k": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("v"))},
    "v is q": {"v": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("q"))},
    "v is k": {"v": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("k"))},
    "q is whole": {"q": Tap(f"{BLOCK}.attn.c_attn", "output", whole)},
    "q is the norm's": {"q": Tap(f"{BLOCK}.ln_1", "output", heads)},
    "k is the norm's": {"k": Tap(f"{BLOCK}.ln_1", "output", heads)},
    "v is the norm's": {"v": Tap(f"{BLOCK}.ln_1", "output", heads)},
    "q and k are swapped": {
        "q": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("k")),
        "k": Tap(f"{BLOCK}.attn.c_attn", "output", stacked("q")),
    },
    "q is turned around": {"q": Tap(f"{BLOCK}.attn.c_attn", "output", turned(stacked("q")))},
    "k is turned around": {"k": Tap(f"{BLOCK}.attn.c_attn", "output", turned(stacked("k")))},
    "v is turned around": {"v": Tap(f"{BLOCK}.attn.c_attn", "output", turned(stacked("v")))},
    "z is turned around": {"z": Tap(f"{BLOCK}.attn.c_proj", "input", turned(heads))},
    "z is the projection's output": {"z": Tap(f"{BLOCK}.attn.c_proj", "output", heads)},
    "z is whole": {"z": Tap(f"{BLOCK}.attn.c_proj", "input", whole)},
    "attn_out is the projection's input": {"attn_out": Tap(f"{BLOCK}.attn.c_proj", "input")},
    "attn_out is the MLP's": {"attn_out": Tap(f"{BLOCK}.mlp", "output")},
    "resid_mid is not in place": {"resid_mid": Tap(f"{BLOCK}.ln_2", "input")},
    "resid_mid is the norm's output": {"resid_mid": Tap(f"{BLOCK}.ln_2", "output", in_place=True)},
    "resid_mid is the first norm's": {"resid_mid": Tap(f"{BLOCK}.ln_1", "input", in_place=True)},
    "mlp_post is before the activation": {"mlp_post": Tap(f"{BLOCK}.mlp.c_fc", "output")},
    "mlp_post is the projection's output": {"mlp_post": Tap(f"{BLOCK}.mlp.c_proj", "output")},
    "mlp_out is attention's": {"mlp_out": Tap(f"{BLOCK}.attn.c_proj", "output")},
    "mlp_out is the MLP's input": {"mlp_out": Tap(f"{BLOCK}.mlp", "input")},
    "resid_post is the block's input": {"resid_post": Tap(BLOCK, "input")},
    "resid_post is the MLP's": {"resid_post": Tap(f"{BLOCK}.mlp", "output")},
    "logits are the final norm's": {"logits": Tap("transformer.ln_f", "output")},
    "a module that does not exist": {"z": Tap(f"{BLOCK}.self_attn.o_proj", "input", heads)},
    "a module that never runs": {"mlp_out": Tap(f"{BLOCK}.attn.attn_dropout", "output")},
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_tap_is_found_out(make_gpt2, name):
    hf = make_gpt2()
    with pytest.raises(ProbeError, match=r"row|family"):
        probe(hf, anatomy_with(hf, **WRONG[name]))


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("site", ["q", "k", "v"])
def test_the_norms_output_is_found_out_in_a_model_of_one_head_too(make_gpt2, site, seed):
    """There, an edit of it may well move the one head as an edit of the query or key would."""
    hf = make_gpt2(n_head=1, seed=seed)
    with pytest.raises(ProbeError, match=r"row|family"):
        probe(hf, anatomy_with(hf, **{site: Tap(f"{BLOCK}.ln_1", "output", heads)}))


@pytest.mark.parametrize(
    "changes",
    [
        {"n_heads": 2, "n_kv_heads": 2},
        {"d_head": 4},
        {"n_layers": 4},
        {"n_layers": 2},
        {"d_model": 16},
        {"d_mlp": 64},
        {"d_vocab": 64},
        {"n_heads": 8, "n_kv_heads": 8, "d_head": 4},
        {"n_heads": 2, "n_kv_heads": 2, "d_head": 16},
    ],
    ids=str,
)
def test_wrong_dimensions_are_found_out(make_gpt2, changes):
    hf = make_gpt2()
    anatomy = Anatomy.of(hf)
    with pytest.raises(ProbeError):
        probe(hf, replace(anatomy, dims=replace(anatomy.dims, **changes)))


@pytest.mark.parametrize("projection", ["out_proj", "down_proj"])
@pytest.mark.parametrize(
    "path",
    ["transformer.h.{layer}.mlp.c_fc", "transformer.h.{layer}.attn", "transformer.nowhere"],
)
def test_a_wrong_projection_is_found_out(make_gpt2, projection, path):
    hf = make_gpt2()
    family = replace(GPT2, **{projection: path})
    with pytest.raises(ProbeError, match=r"row|family"):
        probe(hf, Anatomy.by(family, hf.config))


def test_parts_that_do_nothing_are_no_reason_to_refuse(make_gpt2):
    """A head or an MLP that somebody has pruned by zeroing it: its site is where it should be."""
    hf = make_gpt2()
    with torch.no_grad():
        hf.transformer.h[0].attn.c_attn.weight[:, :8].zero_()
        hf.transformer.h[0].attn.c_proj.weight[:8].zero_()
        hf.transformer.h[1].mlp.c_fc.weight.zero_()
    probe(hf, Anatomy.of(hf))


@pytest.mark.parametrize("sizes", [(1, 32), (2, 16), (16, 2), (2, 256)], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_heads_of_any_size_pass(make_gpt2, sizes, dtype):
    n_head, width = sizes[0], sizes[0] * sizes[1]
    hf = make_gpt2(n_head=n_head, n_embd=width, n_layer=1, dtype=dtype)
    hf.apply(hf._init_weights)
    probe(hf, Anatomy.of(hf))


def test_it_takes_a_few_passes(make_gpt2):
    hf = make_gpt2()
    tokens = []

    def count(module, args, kwargs):
        tokens.append(kwargs["input_ids"].numel())

    # A hook of somebody's own is left out of the proof.
    hf.register_forward_pre_hook(theirs(count, "torch"), with_kwargs=True)
    probe(hf, Anatomy.of(hf))
    assert len(tokens) <= 10
    assert max(tokens) <= 36


def test_a_module_of_the_users_that_computes_otherwise_is_found_out(make_gpt2):
    hf = make_gpt2()
    block = hf.transformer.h[1]
    normal = block.forward

    def halved(x, *args, **kwargs):
        output = normal(x, *args, **kwargs)
        return (output[0] * 0.5, *output[1:]) if isinstance(output, tuple) else output * 0.5

    block.forward = halved
    with pytest.raises(ProbeError, match="L1: resid_mid \\+ mlp_out is not resid_post"):
        probe(hf, Anatomy.of(hf))


def test_logits_of_minus_infinity_are_pushed_by_the_others(make_gpt2, monkeypatch):
    hf = make_gpt2()
    head = hf.lm_head
    bias = torch.zeros(head.out_features)
    bias[-4:] = -torch.inf
    head.bias = torch.nn.Parameter(bias, requires_grad=False)
    pushed = []
    check = probed_sites._check_edits

    def checked(sites, clean, edited):
        pushed.append(edited["logits", None])
        check(sites, clean, edited)

    monkeypatch.setattr(probed_sites, "_check_edits", checked)
    probe(hf, Anatomy.of(hf))
    assert pushed
    for logits in pushed:
        assert (logits[..., -4:] == -torch.inf).all()
        assert logits[..., :-4].isfinite().all()
