"""Direct logit attribution against closed forms, written out family by family in numpy."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.special
import torch
from torch.overrides import TorchFunctionMode

import microtome as mt
from conftest import BERLIN, CAT
from microtome.errors import AddressError, ArchitectureError, MetricError, SweepError
from microtome.readings.affine import affine, pulled, pushed
from oracles import families as by_hand
from oracles.families import FAMILIES, HEADS, LAYERS

PROMPT = mt.Prompt("The cat sat on the mat, and", target=" cat", contrast=" dog")


def made(name, of_family):
    model = of_family(name)
    one = model.encode(PROMPT)[0]
    seen = by_hand.run(model.hf, FAMILIES[name], one.tokens.ids).seen
    return model, one, {place: values[-1] for place, values in seen.items() if place[0] != "logits"}


def weights(module, name="weight"):
    return getattr(module, name).detach().double().numpy()


def normed_by(x: np.ndarray, eps: float, centred: bool) -> float:
    own = x - x.mean() if centred else x
    return np.sqrt((own**2).mean() + eps)


@pytest.fixture(scope="module")
def gpt2(of_family):
    """The model, its prompt, what it had at the last token, and the direction that is read."""
    model, one, seen = made("gpt2", of_family)
    unembed = weights(model.hf.lm_head)
    read = unembed[one.target] - unembed[one.contrast]
    norm, x = model.hf.transformer.ln_f, seen["resid_post", LAYERS - 1]
    scaled = read * weights(norm) / normed_by(x, norm.eps, centred=True)
    return model, seen, scaled - scaled.mean(), read


def test_in_gpt2_they_are_products_with_one_direction(gpt2):
    model, seen, along, read = gpt2
    found = mt.attribute_logits(model, PROMPT).data.isel(prompt=0)
    for layer, block in enumerate(model.hf.transformer.h):
        out = weights(block.attn.c_proj).reshape(HEADS, -1, 32)
        heads = np.einsum("hd,hdm,m->h", seen["z", layer], out, along)
        own = found.sel(layer=layer)
        np.testing.assert_allclose(own["head_out"], heads, atol=1e-12)
        bias = weights(block.mlp.c_proj, "bias")
        np.testing.assert_allclose(own["mlp_out"], (seen["mlp_out", layer] - bias) @ along,
                                   atol=1e-12)  # fmt: skip
        assert float(own["mlp_bias"]) == pytest.approx(bias @ along, abs=1e-12)
        bias = weights(block.attn.c_proj, "bias")
        assert float(own["attn_bias"]) == pytest.approx(bias @ along, abs=1e-12)
    assert float(found["embed"]) == pytest.approx(seen["embed", None] @ along, abs=1e-12)
    final = weights(model.hf.transformer.ln_f, "bias") @ read
    assert float(found["final_bias"]) == pytest.approx(final, abs=1e-12)
    assert not found["norm_bias"].values.any()
    assert float(found["unembed_bias"]) == 0


def test_a_neuron_adds_its_activation_times_its_row(gpt2):
    model, seen, along, _ = gpt2
    found = mt.attribute_neurons(model, PROMPT, -2, k=4, tokens=3)
    out, acts = weights(model.hf.transformer.h[1].mlp.c_proj), seen["mlp_post", 1]
    each = acts * (out @ along)
    order = np.argsort(-np.abs(each))[:4]
    assert found["neuron"].tolist() == order.tolist()
    np.testing.assert_allclose(found["share"], each[order], atol=1e-12)
    np.testing.assert_allclose(found["activation"], acts[order], atol=1e-12)
    rows = out[order] - out[order].mean(-1, keepdims=True)
    logits = rows * weights(model.hf.transformer.ln_f) @ weights(model.hf.lm_head).T
    for number, row in enumerate(found.itertuples()):
        best = [model.tokenizer.decode([n]) for n in np.argsort(-logits[number])[:3]]
        worst = [model.tokenizer.decode([n]) for n in np.argsort(logits[number])[:3]]
        assert found["for"][number] == best, row
        assert found["against"][number] == worst, row


def test_in_gemma2_norms_behind_the_parts_are_held_too(of_family):
    model, one, seen = made("gemma2", of_family)
    eps = model.hf.config.rms_norm_eps
    unembed = weights(model.hf.lm_head)
    x = seen["resid_post", LAYERS - 1]
    along = (unembed[one.target] - unembed[one.contrast]) * (1 + weights(model.hf.model.norm))
    along = along / normed_by(x, eps, centred=False)
    found = mt.attribute_logits(model, PROMPT).data.isel(prompt=0)
    for layer, block in enumerate(model.hf.model.layers):
        out = weights(block.self_attn.o_proj).T.reshape(HEADS, -1, 32)
        each = np.einsum("hd,hdm->hm", seen["z", layer], out)
        scale = 1 + weights(block.post_attention_layernorm)
        inner = along * scale / normed_by(each.sum(0), eps, centred=False)
        np.testing.assert_allclose(found["head_out"].sel(layer=layer), each @ inner, atol=1e-6)
        own = found["mlp_out"].sel(layer=layer)
        np.testing.assert_allclose(own, seen["mlp_out", layer] @ along, atol=1e-6)


def test_in_bert_norms_of_the_stream_and_what_stands_before_the_unembedding_are_held(of_family):
    model, one, seen = made("bert", of_family)
    hf, last = model.hf, LAYERS - 1
    block, head = hf.bert.encoder.layer[last], hf.cls.predictions
    dense, norm = head.transform.dense, head.transform.LayerNorm

    def back(norm, x, along):
        scaled = along * weights(norm) / normed_by(x, norm.eps, centred=True)
        return scaled - scaled.mean()

    x = seen["resid_post", last]
    linear = weights(dense) @ x + weights(dense, "bias")
    gate = scipy.special.ndtr(linear)
    decoder = weights(head.decoder)
    along = back(norm, linear * gate, decoder[one.target] - decoder[one.contrast])
    along = weights(dense).T @ (along * gate)
    total = seen["resid_mid", last] + seen["mlp_out", last]
    along = back(block.output.LayerNorm, total, along)
    found = mt.attribute_logits(model, PROMPT).data.isel(prompt=0)
    bias = weights(block.output.dense, "bias")
    own = found["mlp_out"].sel(layer=last)
    np.testing.assert_allclose(own, (seen["mlp_out", last] - bias) @ along, atol=1e-11)
    total = seen["resid_pre", last] + seen["attn_out", last]
    along = back(block.attention.output.LayerNorm, total, along)
    out = weights(block.attention.output.dense).T.reshape(HEADS, -1, 32)
    heads = np.einsum("hd,hdm,m->h", seen["z", last], out, along)
    np.testing.assert_allclose(found["head_out"].sel(layer=last), heads, atol=1e-11)


@pytest.mark.parametrize("size", [1, 2, 7])
@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.RMSNorm, torch.nn.GELU])
def test_a_step_as_it_was_gives_what_it_gave(size, kind):
    torch.manual_seed(size)
    step = kind() if kind is torch.nn.GELU else kind(size, dtype=torch.float64)
    for weight in step.parameters():
        weight.requires_grad_(False).normal_()
    x = torch.randn(size, dtype=torch.float64)
    x[0] = 0.0
    [one] = affine(step, x)
    np.testing.assert_allclose(pushed([one], x) + one.bias, step(x), atol=1e-12)
    along = torch.randn(size, dtype=torch.float64)
    back, bias = pulled([one], along)
    assert float(back @ x) + bias == pytest.approx(float(step(x) @ along), abs=1e-12)


class Adapted(torch.nn.Module):
    """As peft holds what it adapts: in front of tables of its own."""

    def __init__(self, base):
        super().__init__()
        self.base_layer = base
        self.by_adapter = torch.nn.ModuleDict({"default": torch.nn.Linear(7, 7, bias=False)})

    def forward(self, x):
        return self.base_layer(x + self.by_adapter["default"](0 * x))


@pytest.mark.parametrize("kind", [torch.nn.LayerNorm, torch.nn.Linear])
def test_a_step_that_is_adapted_is_of_the_kind_that_it_adapts(kind):
    torch.manual_seed(0)
    step = Adapted(kind(7) if kind is torch.nn.LayerNorm else kind(7, 7))
    step.double().requires_grad_(False)
    x, along = torch.randn(2, 7, dtype=torch.float64)
    [one], [bare] = affine(step, x), affine(step.base_layer, x)
    np.testing.assert_allclose(pushed([one], x) + one.bias, step(x), atol=1e-12)
    np.testing.assert_allclose(one.pull(along), bare.pull(along), atol=1e-12)


def test_what_is_no_row_of_norms_and_layers_is_refused():
    class Odd(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = torch.nn.Linear(3, 3)

        def forward(self, x):
            return self.inner(x) ** 2

    with pytest.raises(ArchitectureError, match="cannot be told"):
        affine(Odd(), torch.ones(3))


def test_what_has_no_logit_is_refused_by_name(tiny, of_family):
    with pytest.raises(MetricError, match="not to prob: ask for logit"):
        mt.attribute_logits(tiny, PROMPT, "prob")
    with pytest.raises(MetricError, match="the target of 'The cat sat' is none"):
        mt.attribute_logits(tiny, CAT)
    with pytest.raises(MetricError, match="is several tokens"):
        mt.attribute_logits(tiny, mt.Prompt(BERLIN, targets=[" Germany", " France"]))
    with pytest.raises(AddressError, match="There is no layer 3; there are 3"):
        mt.attribute_neurons(tiny, PROMPT, 3)
    with pytest.raises(SweepError, match=r"layer=1\.0: expected a whole number"):
        mt.attribute_neurons(tiny, PROMPT, 1.0)
    experts = of_family("mixtral")
    with pytest.raises(AddressError, match="mixture of experts"):
        mt.attribute_neurons(experts, PROMPT, 0)


def test_over_prompts_of_several_lengths_there_are_means_with_intervals(tiny):
    prompts = [PROMPT, mt.Prompt(CAT, target=" cat", contrast=" dog"),
               mt.Prompt(BERLIN, target=" Germany", contrast=" France")]  # fmt: skip
    found = mt.attribute_logits(tiny, prompts, sources=True)
    alone = mt.attribute_logits(tiny, prompts[1], sources=True)
    own = found.data["source"].isel(prompt=1)
    np.testing.assert_allclose(own.isel(pos=slice(0, 3)), alone.data["source"][0], atol=1e-6)
    assert own.isel(pos=slice(3, None)).isnull().all()
    table = found.table(5)
    assert list(table.columns) == ["writer", "share", "low", "high"]
    assert (table["low"] <= table["share"]).all()
    each = found.table()
    assert len(each) == 1 + LAYERS * (HEADS + 4) + 2
    assert each["share"].sum() == pytest.approx(float(found.data["logit"].mean()), abs=1e-5)
    assert list(alone.table(1).columns) == ["writer", "share"]
    assert found.figure(prompt=1).data[0].z.shape == (LAYERS, HEADS + 2)


def test_odd_shapes_and_bfloat16(make_gpt2, tokenizer):
    one = mt.load(make_gpt2(n_layer=1, n_head=1, dtype=torch.float64), tokenizer=tokenizer)
    found = mt.attribute_logits(one, mt.Prompt("Berlin", target=" Germany"))
    assert abs(float(found.total[0] - found.data["logit"][0])) <= 1e-9
    assert found.total.name == "total"
    coarse = mt.load(make_gpt2(dtype=torch.bfloat16), tokenizer=tokenizer)
    found = mt.attribute_logits(coarse, PROMPT)
    own = coarse.run(PROMPT).logits[0, -1].double()
    wanted = float(own[coarse.encode(PROMPT)[0].target] - own[coarse.encode(PROMPT)[0].contrast])
    assert abs(float(found.total[0]) - wanted) <= 0.05 * float(own.std())


@pytest.mark.parametrize("family", ["gpt2", "cohere"])  # without a scale of logits, and with one
def test_of_two_tokens_two_rows_are_unembedded(of_family, family):
    model, heads = of_family(family), []
    whole = float(model.run(PROMPT).logits[0, -1, [*answers(model)]].double().diff())
    linear, head = torch.nn.functional.linear, model.hf.get_output_embeddings()

    class Counting(TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            heads.append(func is linear and args[1] is head.weight)
            return func(*args, **(kwargs or {}))

    with Counting():
        found = mt.attribute_logits(model, PROMPT)
    assert not any(heads)
    assert float(found.data["logit"][0]) == pytest.approx(-whole, abs=1e-9)


def answers(model):
    one = model.encode(PROMPT)[0]
    return one.target, one.contrast


@pytest.mark.slow
def test_on_a_real_model_they_sum_to_the_logit(smollm2):
    prompt = mt.Prompt(BERLIN, target=" Germany", contrast=" France")
    found = mt.attribute_logits(smollm2, prompt, sources=True)
    own = smollm2.run(prompt).logits[0, -1].double()
    one = smollm2.encode(prompt)[0]
    assert float(found.total[0]) == pytest.approx(
        float(own[one.target] - own[one.contrast]), abs=1e-3
    )


def test_what_is_not_in_the_map_stands_over_it_with_its_sign(nano):
    prompt = mt.Prompt("Berlin is the capital of", target=" Germany", contrast=" France")
    note = mt.attribute_logits(nano, prompt).figure().layout.title.subtitle.text
    assert note.startswith("logit_diff 7.958 = the map − 0.0074")
    assert "(embedding) − 0.087" in note
    assert "+ -" not in note
