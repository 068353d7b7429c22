"""Names of other tools are refused with what they are called here."""

from __future__ import annotations

import re

import pytest

import microtome as mt
from microtome.errors import AddressError, EditError, LoadError, MetricError
from microtome.language import habits
from microtome.language.addresses import parse
from microtome.language.calls import NAMES
from microtome.language.sites import SITES
from microtome.readings.names import INSIDE, ON_OUTPUT, name_of

ADDRESSES = {
    "blocks.5": "L5.resid_post",
    "blocks.5.hook_resid_pre": "L5.resid_pre",
    "blocks.5.hook_resid_mid": "L5.resid_mid",
    "blocks.5.attn.hook_z": "L5.z",
    "blocks.5.attn.hook_k@-1": "L5.k@-1",
    "blocks[5].attn.hook_z@last": "L5.z@last",
    "L5H3@-1": "L5.z.h3@-1",
    "blocks.5.attn.hook_pattern": "L5.pattern",
    "blocks.5.attn.hook_attn_scores": "L5.pattern",
    "blocks.5.attn.hook_result": "L5.head_out",
    "blocks.5.hook_q_input": "L5.q_in",
    "blocks.5.hook_v_input": "L5.v_in",
    "blocks.5.hook_mlp_in": "L5.mlp_in",
    "ln_final.hook_normalized": "final_in",
    "blocks.5.attn.hook_z[:, :, 6]": "L5.z.h6",
    "blocks.5.attn.hook_z[:, -1, 6, :]": "L5.z.h6@-1",
    "blocks.5.hook_resid_post[:, -1]": "L5.resid_post@-1",
    "blocks.5.mlp.hook_post": "L5.mlp_post",
    "blocks.*.hook_mlp_out": "L*.mlp_out",
    "blocks.{layer}.hook_resid_pre": "L*.resid_pre",
    "blocks.3.ln2.hook_normalized": "L3.resid_mid",
    "hook_embed": "embed",
    "resid_pre.5": "L5.resid_pre",
    "resid_pre5": "L5.resid_pre",
    "transformer.h.5": "L5.resid_post",
    "transformer.h[5].output[0]": "L5.resid_post",
    "model.layers.5.input": "L5.resid_pre",
    "model.layers.5.self_attn.o_proj": "L5.z",
    "model.layers.5.self_attn.q_proj": "L5.q",
    "model.layers[5].mlp.down_proj": "L5.mlp_post",
    "transformer.h.5.mlp": "L5.mlp_out",
    "transformer.h.5.attn.c_proj": "L5.attn_out",
    "gpt_neox.layers.3.attention.dense": "L3.z",
    "encoder.layer.2.attention.self.value": "L2.v",
    "model.layers.5.input_layernorm": "L5.resid_pre",
    "transformer.h.5.attn.c_attn": "L5.v",
    "model.decoder.layers.5.fc2": "L5.mlp_post",
    "model.decoder.layers.5.fc1": "L5.mlp_post",
    "distilbert.transformer.layer.5.attention.out_lin": "L5.z",
    "model.layers.5.attn.Wo": "L5.z",
    "hidden_states[5]": "L4.resid_post",
    "hidden_states[0]": "embed",
    "model.embed_tokens": "embed",
    "transformer.ln_f": "L-1.resid_post",
    "lm_head": "logits",
    "block_output": "L5.resid_post",
    "mlp_activation": "L5.mlp_post",
    "L5H3": "L5.z.h3",
    "5.3": "L5.z.h3",
    "a5.h3": "L5.z.h3",
    "m5": "L5.mlp_out",
    "layer5.z": "L5.z",
    "layers.5.z": "L5.z",
}


@pytest.mark.parametrize(("text", "here"), ADDRESSES.items())
def test_an_address_of_another_tool_is_refused_with_ours(text, here):
    with pytest.raises(AddressError) as refused:
        mt.zero(text)
    message = str(refused.value)
    assert message.startswith(repr(text))
    assert here in re.findall(r"[\w*.@-]+\w|embed|logits", message.partition("here: ")[2])
    assert "Did you mean" not in message
    parse(here)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("blocks.5.attn.hook_rot_k", "before the rotary embedding"),
        ("blocks.5.attn.hook_attn_scores", "'knockout' is a score of −∞"),
        ("blocks.5.mlp.hook_pre", "behind the activation"),
        ("blocks.5.ln1.hook_scale", "whose scale is no site"),
        ("ln_final.hook_normalized", "before the norm"),
        ("transformer.h.5.mlp.c_fc", "behind the activation"),
    ],
)
def test_of_what_is_no_site_here_it_is_said_what_the_nearest_is_instead(text, why):
    with pytest.raises(AddressError, match=re.escape(why)):
        mt.zero(text)


@pytest.mark.parametrize("text", ["xylophone", "blocks", "L5.xylophone", "L5.blocks"])
def test_what_no_tool_says_is_not_guessed_at(text):
    assert habits.address_of(text) == ""
    with pytest.raises(AddressError) as refused:
        parse(text)
    assert "logits'?" not in str(refused.value)


@pytest.mark.parametrize(
    ("given", "meant"),
    [("L5.attn", "attn_out"), ("L5.hidden_states", "resid_post"), ("L5.heads.h3", "z"),
     ("L5.attention_weights", "pattern"), ("L5.mlp", "mlp_out"), ("L5.resid_pots", "resid_post")],
)  # fmt: skip
def test_a_site_of_another_name_is_meant_by_its_sense(given, meant):
    with pytest.raises(AddressError, match=f"Did you mean '{meant}'"):
        parse(given)


def test_every_valid_address_stays_valid():
    for site in SITES.values():
        text = f"L5.{site.name}" if site.layered else site.name
        assert habits.address_of(text) == ""
        assert parse(text).site is site


def test_the_tables_name_what_there_is():
    assert set(habits.WORDS.values()) <= set(SITES)
    assert set(habits.EDITS.values()) <= set(NAMES)
    for own in habits.METRICS.values():
        assert name_of(own) in (*ON_OUTPUT, *INSIDE)
        mt.readings.registry.readings([own])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ablate L5.z", "Did you mean 'zero'?"),
        ("mean_ablate L5.z", "Did you mean 'mean'?"),
        ("steer L5.z", "Did you mean 'add'?"),
        ("project_out L5.z", "Did you mean 'project'?"),
        ("cap L5.z", "Did you mean 'clamp'?"),
        ("L5.z.h3", "Say what is done there"),
        ("blocks.5.attn.hook_z", "here: L5.z."),
        ("zreo L5.z", "Did you mean 'zero'?"),
    ],
)
def test_an_edit_of_another_name(text, words):
    with pytest.raises(EditError, match=re.escape(words)):
        mt.edit(text)


@pytest.mark.parametrize(
    ("given", "nearest"),
    [("logit_difference", "logit_diff"), ("kl_div", "kl"), ("KL divergence", "kl"),
     ("cross-entropy", "loss"), ("probability", "prob"), ("log_prob", "logprob"),
     ("accuracy", "top1"), ("perplexity@3", "next_loss")],
)  # fmt: skip
def test_a_metric_of_another_name(given, nearest):
    with pytest.raises(MetricError, match=f"Nearest: '{nearest}'"):
        mt.readings.registry.readings([given])


@pytest.mark.parametrize("name", habits.LOADING)
def test_an_argument_of_another_loader_is_refused_before_anything_is_loaded(name):
    with pytest.raises(LoadError, match=re.escape(f"load has no {name}=. ")):
        mt.load("nowhere/at-all", **{name: True})


@pytest.mark.parametrize(
    ("name", "hub"),
    [("gpt2-small", "gpt2"), ("pythia-70m-deduped", "EleutherAI/pythia-70m-deduped")],
)
def test_a_model_by_its_name_in_another_tool(name, hub, tmp_path, monkeypatch):
    with pytest.raises(LoadError, match=re.escape(f"here: load({hub!r})")):
        mt.load(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / name).mkdir()
    with pytest.raises(LoadError, match=r"config\.json"):
        mt.load(name)


def test_names_of_other_tools_in_python(nano):
    with pytest.raises(AttributeError, match=r"'HookedTransformer'; here: microtome.load\(name\)"):
        mt.HookedTransformer  # noqa: B018
    with pytest.raises(AttributeError, match=r"no attribute 'run_with_cache'; here: model\.run"):
        nano.run_with_cache("Berlin")
    with pytest.raises(AttributeError, match=r"'generation'; here: model\.generate\(prompt"):
        nano.generation("Berlin")
    with pytest.raises(AttributeError, match=r"'cuda'; here: microtome\.load\(name, device="):
        nano.cuda()
    with pytest.raises(AttributeError, match=r"has no attribute 'xylophone'$"):
        nano.xylophone  # noqa: B018
    assert not hasattr(nano, "to_tokens")


def test_what_a_property_lacks_is_named_and_not_the_property(nano, monkeypatch):
    monkeypatch.setattr(type(nano), "weight_hash", property(lambda model: model.hf.nothing))
    with pytest.raises(AttributeError, match=r"no attribute 'nothing'$"):
        nano.weight_hash  # noqa: B018
