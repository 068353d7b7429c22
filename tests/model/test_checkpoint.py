"""Weight files are looked at before anything is built of them."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

import microtome as mt
from microtome.errors import LoadError

INDEX = "model.safetensors.index.json"


@pytest.fixture(scope="module")
def saved(make_gpt2, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_gpt2().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture
def built(monkeypatch):
    """Which models were built or read: none may be where files are refused."""
    asked = []

    def never(*_, **__):
        asked.append(True)
        raise AssertionError("something was built")

    monkeypatch.setattr(AutoModelForCausalLM, "from_pretrained", never)
    monkeypatch.setattr(torch, "load", never)
    return asked


def sharded(folder, names=("one.safetensors", "two.safetensors")):
    """The weights of a folder in two files and an index of them."""
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    halves = (sorted(weights)[::2], sorted(weights)[1::2])
    for name, half in zip(names, halves, strict=True):
        save_file({n: weights[n] for n in half}, folder / name, metadata={"format": "pt"})
    index = {n: name for name, half in zip(names, halves, strict=True) for n in half}
    (folder / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": index}))


def renamed(folder, name):
    """The index names this in the place of its first file."""
    index = json.loads((folder / INDEX).read_text())
    index["weight_map"] = {
        key: name if shard == "one.safetensors" else shard
        for key, shard in index["weight_map"].items()
    }
    (folder / INDEX).write_text(json.dumps(index))


def configured(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_an_index_of_safetensors_is_loaded(folder, make_gpt2):
    sharded(folder)
    model = mt.load(folder, device="cpu")
    assert torch.equal(model.hf.lm_head.weight, make_gpt2().lm_head.weight)


def test_links_are_followed_as_the_hubs_cache_needs(folder, tmp_path):
    sharded(folder)
    blob = tmp_path / "blobs" / "0123abc"
    blob.parent.mkdir()
    (folder / "one.safetensors").rename(blob)
    (folder / "one.safetensors").symlink_to(blob)
    assert mt.load(folder, device="cpu").anatomy.dims.n_layers == 3


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("pytorch_model.bin", "which is no safetensors file"),
        ("/etc/model.safetensors", "which is outside the model's directory"),
        ("../model.safetensors", "which is outside the model's directory"),
        ("a/../../model.safetensors", "which is outside the model's directory"),
        ("C:\\model.safetensors", "which is outside the model's directory"),
        ("..\\model.safetensors", "which is outside the model's directory"),
        ("a\0.safetensors", "which is outside the model's directory"),
    ],
)
def test_an_index_that_names_another_kind_of_file_or_one_elsewhere(folder, built, name, why):
    sharded(folder)
    renamed(folder, name)
    torch.save({}, folder / "pytorch_model.bin")
    shutil.copy(folder / "two.safetensors", folder.parent / "model.safetensors")
    with pytest.raises(LoadError, match=r"Nothing was read\. Convert") as error:
        mt.load(folder)
    assert f"{INDEX} names {name!r}, {why}" in str(error.value)
    assert not built


def test_an_index_that_names_a_missing_file(folder, built):
    sharded(folder)
    (folder / "one.safetensors").unlink()
    with pytest.raises(LoadError, match=rf"{INDEX} names one.safetensors, and there is no such"):
        mt.load(folder)
    assert not built


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"weight_map": 3}', '{"weight_map": {}}', "[" * 9**5]
)
def test_an_index_that_is_none(folder, built, text):
    sharded(folder)
    (folder / INDEX).write_text(text)
    with pytest.raises(LoadError, match="weight_map") as error:
        mt.load(folder)
    assert INDEX in str(error.value)
    assert not built


@pytest.mark.parametrize("layers", [2, 4, 3_000])
def test_a_configuration_of_more_or_fewer_layers_than_the_weights(folder, built, layers):
    configured(folder, n_layer=layers)
    words = f"asks for {layers:,} layers, and the weights are of 3"
    with pytest.raises(LoadError, match=words) as error:
        mt.load(folder)
    assert not built
    if layers == 2:
        assert "no place for transformer.h.2.attn.c_attn.bias" in str(error.value)
        assert "and 7 more" in str(error.value)


@pytest.mark.parametrize(
    "change", [{"n_embd": 10**6}, {"n_inner": 10**9}, {"n_positions": 10**9}, {"vocab_size": 10**9}]
)
def test_a_configuration_of_a_much_larger_model(folder, built, change):
    configured(folder, **change)
    with pytest.raises(LoadError, match=r"has at least [\d,]{9,} numbers, and its weight files"):
        mt.load(folder)
    assert not built


@pytest.mark.parametrize("change", [{"n_head": 0}, {"n_embd": None}])
def test_a_configuration_that_makes_no_model(folder, built, change):
    configured(folder, **change)
    with pytest.raises(LoadError, match=r"config.json"):
        mt.load(folder)
    assert not built


def test_layers_may_be_left_out_on_request(folder):
    assert mt.load(folder, device="cpu", n_layer=2).anatomy.dims.n_layers == 2


def test_an_option_that_is_none_is_refused(folder):
    with pytest.raises(LoadError, match=r"Cannot load.*no_such_option"):
        mt.load(folder, no_such_option=1)


def test_a_bias_that_the_configuration_does_not_know_is_not_left_out(tokenizer, tmp_path):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0, attention_bias=True,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    assert mt.load(tmp_path, device="cpu").hf.model.layers[0].self_attn.q_proj.bias is not None
    configured(tmp_path, attention_bias=False)
    with pytest.raises(LoadError, match=r"self_attn.k_proj.bias has no place in the model"):
        mt.load(tmp_path)
    configured(tmp_path, attention_bias=True)
    weights = load_file(tmp_path / "model.safetensors")
    normed = {**weights, "model.layers.0.self_attn.q_norm.weight": torch.ones(16)}
    save_file(normed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"q_norm.weight has no place in the model"):
        mt.load(tmp_path)  # of another kind of block, as Qwen3's is to Llama's
    packed = {n: w.to(torch.int8) if "up_proj" in n else w for n, w in weights.items()}
    save_file(packed, tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"up_proj.weight is of whole numbers \(I8\), and config"):
        mt.load(tmp_path)


def test_a_weight_that_is_in_two_files_is_nobodys(folder, built):
    sharded(folder)
    first = load_file(folder / "one.safetensors")
    both = {**load_file(folder / "two.safetensors"), next(iter(first)): next(iter(first.values()))}
    save_file(both, folder / "two.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        LoadError, match=rf"{next(iter(first))} is in one.* and in two\.safetensors"
    ):
        mt.load(folder)
    assert not built


@pytest.mark.parametrize("change", [{"activation_function": "no such"}, {"dtype": "no_such"}])
def test_a_word_that_nobody_knows_is_the_configurations_fault(folder, change):
    configured(folder, **change)
    with pytest.raises(LoadError, match=r"(config.json|Cannot load).*no.such"):
        mt.load(folder)


def test_weights_that_are_no_numbers_are_not_the_tables_fault(folder):
    weights = load_file(folder / "model.safetensors")
    broken = {n: w * torch.nan if "h.1.mlp" in n else w for n, w in weights.items()}
    save_file(broken, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(LoadError, match=r"all its logits are NaN.*whether its files are whole"):
        mt.load(folder)


def test_old_buffers_and_heads_that_are_not_asked_for_are_no_harm(tokenizer, tmp_path):
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=16, num_hidden_layers=1,
        num_attention_heads=2, bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    weights["model.layers.0.self_attn.rotary_emb.inv_freq"] = torch.ones(8)
    weights["model.layers.0.self_attn.bias"] = torch.ones(1, 1, 4, 4)
    weights["model.rotary_emb.inv_freq"] = torch.ones(8)
    weights["score.weight"] = torch.ones(2, 32)
    save_file(weights, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert mt.load(tmp_path, device="cpu").anatomy.dims.n_layers == 1


def test_a_folder_of_an_adapter_says_so(folder):
    (folder / "adapter_config.json").write_text("{}")
    with pytest.raises(LoadError, match=r"holds an adapter.*merge_and_unload"):
        mt.load(folder)


def test_a_folder_whose_name_is_not_utf8_is_no_damaged_file(folder, tmp_path):
    """As names of before UTF-8 are: of a path given as bytes, Python makes half characters."""
    named = tmp_path / "caf\udce9"
    try:
        folder.rename(named)
    except OSError:  # some file systems have no such names
        pytest.skip("there are no such names here")
    with pytest.raises(LoadError, match=r"caf\\udce9.*has a name that is not UTF-8.*Rename it"):
        mt.load(named)
