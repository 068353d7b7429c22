"""Models spread over devices, offloaded, in bfloat16 or packed: the same maps, or a refusal."""

from __future__ import annotations

import copy
import logging

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import microtome as mt
from microtome.errors import LoadError, SweepError
from microtome.model.placement import device_of, is_plain, why_no_copy
from oracles import families as by_hand

PROMPT = mt.Prompt(
    "Berlin is the capital of", donor="Paris is the capital of", target=" Germany", contrast=" in"
)
FAMILIES = ("gpt2", "llama", "llama, tied")
EDIT = "patch L*.z.h*@*"
METRICS = ["logit_diff", "kl"]
OUTSIDE = {
    "gpt2": ("transformer.wte", "transformer.wpe", "transformer.ln_f", "lm_head"),
    "llama": ("model.embed_tokens", "model.norm", "model.rotary_emb", "lm_head"),
}


@pytest.fixture(scope="module", params=FAMILIES)
def checkpoint(request, tokenizer, tmp_path_factory):
    """A directory of a tiny model, and the model's family."""
    folder = tmp_path_factory.mktemp("model")
    by_hand.make(request.param, len(tokenizer), torch.float32).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return request.param, folder


def swept(model):
    return mt.sweep(model, PROMPT, EDIT, metrics=METRICS)


def spread(name, kind):
    hand, outside = by_hand.FAMILIES[name], OUTSIDE[name.split(",")[0]]
    blocks = [f"{hand.blocks}.{layer}" for layer in range(hand.layers)]
    on_cpu = dict.fromkeys([*outside, *blocks], "cpu")
    match kind:
        case "blocks":
            return on_cpu | dict.fromkeys(blocks[1:], "disk")
        case "head":  # tied ones lie together
            return {**on_cpu, outside[0]: "disk", "lm_head": "disk"}
        case "all":
            return {"": "disk"}
        case _:
            return "auto"


@pytest.mark.parametrize("kind", ["blocks", "head", "all", "auto"])
def test_offloaded_weights_give_the_same_map(checkpoint, kind, tmp_path):
    pytest.importorskip("accelerate", reason="a device map needs accelerate")
    name, folder = checkpoint
    whole = mt.load(folder, device="cpu")
    # So little that it does not fit, where the map is left to accelerate.
    more = {"max_memory": {"cpu": 60_000}} if kind == "auto" else {}
    placed = mt.load(folder, device_map=spread(name, kind), offload_folder=tmp_path, **more)
    assert any(weight.is_meta for weight in placed.hf.parameters())
    assert placed.device == torch.device("cpu")
    assert placed.weight_hash == whole.weight_hash
    assert torch.equal(placed.run(PROMPT).logits, whole.run(PROMPT).logits)
    found, wanted = swept(placed), swept(whole)
    for metric in METRICS:
        np.testing.assert_allclose(found.data[metric], wanted.data[metric], atol=5e-6)
    hooked = placed.run(PROMPT, edits=["scale(-2) L1.resid_mid@2", "zero L-1.k.h1"])
    plain = whole.run(PROMPT, edits=["scale(-2) L1.resid_mid@2", "zero L-1.k.h1"])
    assert torch.equal(hooked.logits, plain.logits)
    with pytest.raises(SweepError, match=r"cannot be copied: its weights are spread"):
        mt.sweep(placed, PROMPT, EDIT, metrics=METRICS, screen="bfloat16")


@pytest.mark.parametrize("when", ["before load", "after load"])
@pytest.mark.parametrize("to", ["cpu", "disk"])
def test_what_is_offloaded_by_hand_has_no_map_and_runs_where_its_hooks_say(
    tokenizer, tmp_path, to, when
):
    accelerate = pytest.importorskip("accelerate", reason="it offloads")
    hf = by_hand.make("llama", len(tokenizer)).eval()
    wanted = mt.load(copy.deepcopy(hf), tokenizer=tokenizer).run(PROMPT, edits="zero L1.z.h0")
    model = mt.load(hf, tokenizer=tokenizer) if when == "after load" else None
    if to == "cpu":
        accelerate.cpu_offload(hf, execution_device="cpu")
    else:
        accelerate.disk_offload(hf, tmp_path, execution_device="cpu")
    assert hf.device.type == "meta"
    model = model or mt.load(hf, tokenizer=tokenizer)
    assert model.device == torch.device("cpu")
    assert torch.equal(model.run(PROMPT, edits="zero L1.z.h0").logits, wanted.logits)


def test_translators_of_an_offloaded_model_are_where_it_computes(tokenizer):
    accelerate = pytest.importorskip("accelerate", reason="it offloads")
    hf = by_hand.make("llama", len(tokenizer)).eval()
    accelerate.cpu_offload(hf, execution_device="cpu")
    model = mt.load(hf, tokenizer=tokenizer)
    made = mt.train_translators(model, [PROMPT, "Paris is the capital of"], steps=1, blocks=[0])
    assert made.weight.device == torch.device("cpu")
    assert made.about["kl_after"][0] < made.about["kl_before"][0]


def test_a_checkpoint_in_bfloat16_is_used_as_it_is(checkpoint, tmp_path):
    _, folder = checkpoint
    AutoModelForCausalLM.from_pretrained(folder).to(torch.bfloat16).save_pretrained(tmp_path)
    mt.load(folder).tokenizer.save_pretrained(tmp_path)
    model = mt.load(tmp_path, device="cpu")
    assert model.dtype == torch.bfloat16
    assert swept(model).provenance["verification"]["cells"] >= 4


def test_device_and_device_map_are_not_both_given(checkpoint):
    with pytest.raises(LoadError, match=r"device_map= spreads them: give one"):
        mt.load(checkpoint[1], device="cpu", device_map="auto")


def test_a_model_takes_its_tokens_where_it_computes_first(make_gpt2):
    """Which no machine with one device shows."""
    hf = make_gpt2()
    assert device_of(hf) == torch.device("cpu")
    hf.hf_device_map = {"a": "cpu", "b": "disk"}
    assert device_of(hf) == torch.device("cpu")
    hf.hf_device_map = {"a": "cpu", "b": "cuda:1", "c": "cuda:0", "d": "disk"}
    assert device_of(hf) == torch.device("cuda:1")


def test_where_it_computes_is_found_behind_another_hook(make_gpt2):
    """Accelerate puts one hook behind another where a module has one already."""
    hooks = pytest.importorskip("accelerate.hooks", reason="it offloads")
    hf = make_gpt2().to("meta")
    assert device_of(hf) == torch.device("meta")
    bringing = hooks.AlignDevicesHook(execution_device="cuda:1")
    hf.lm_head._hf_hook = hooks.SequentialHook(hooks.ModelHook(), bringing)
    assert device_of(hf) == torch.device("cuda:1")


def test_a_head_that_is_more_than_a_matrix_is_called(tiny64):
    """A packed or offloaded head cannot be cut to columns: it runs whole, and is cut after."""

    class Packed(torch.nn.Linear):
        def forward(self, x):
            return super().forward(x) * 1.0

    head, final = tiny64.hf.lm_head, torch.randn(200, 32, dtype=torch.float64)
    assert is_plain(head)
    packed = Packed(*head.weight.T.shape, bias=False, dtype=torch.float64)
    packed.weight = head.weight
    assert not is_plain(packed)
    wanted = tiny64.anatomy.unembed(tiny64.hf, final, [3, 1])
    tiny64.hf.lm_head = packed
    try:
        found = tiny64.anatomy.unembed(tiny64.hf, final, [3, 1])
    finally:
        tiny64.hf.lm_head = head
    assert torch.allclose(found, wanted, rtol=0, atol=1e-12)


# ---------------------------------------------------------------------------------------- packed


def packed_8(package):
    if package == "torchao":
        from torchao.quantization import Int8WeightOnlyConfig
        from transformers import TorchAoConfig

        return TorchAoConfig(Int8WeightOnlyConfig())
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_8bit=True)


def packed_4(package):
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_compute_dtype=torch.bfloat16)


@pytest.mark.filterwarnings("ignore")  # those packages' own
@pytest.mark.parametrize(
    ("package", "make", "dtype"),
    [
        ("bitsandbytes", packed_8, torch.float32),
        # In 4 bits its product of few rows is a half-precision one, whatever the type.
        ("bitsandbytes", packed_4, torch.bfloat16),
        ("torchao", packed_8, torch.float32),
    ],
    ids=["bitsandbytes-8", "bitsandbytes-4", "torchao-8"],
)
def test_packed_weights_are_edited_in_the_type_that_they_compute_in(
    package, make, dtype, tokenizer, tmp_path
):
    pytest.importorskip("accelerate", reason="packed weights need accelerate")
    pytest.importorskip(package, reason="packed weights need their package")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,  # packed in blocks of so many
        intermediate_size=128,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
    )
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    options = {"quantization_config": make(package), "dtype": dtype}
    model = mt.load(tmp_path, **options)
    layer = model.hf.model.layers[0].self_attn.q_proj
    assert not is_plain(layer)
    ids = torch.tensor([model.encode(PROMPT)[0].tokens.ids])
    with torch.no_grad():
        bare = model.hf(ids).logits
    assert torch.equal(model.run(PROMPT).logits, bare)
    assert bare.dtype == dtype
    effects = mt.sweep(model, PROMPT, EDIT, metrics=METRICS, verify=8)
    assert effects.provenance["engine"]["name"] == "walk"
    assert effects.provenance["verification"]["cells"] == 8
    assert model.weight_hash != mt.load(tmp_path).weight_hash
    assert "packed" in why_no_copy(model.hf)
