"""Loading: what is there is loaded as it is; what is not there says what is missing."""

from __future__ import annotations

import copy
import json
import os
import pickle
import shutil
import socket
import time

import huggingface_hub.constants
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, models
from transformers import (
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2Model,
    PreTrainedTokenizerFast,
    Starcoder2Config,
    Starcoder2ForCausalLM,
)

import microtome as mt
from conftest import BERLIN
from microtome.errors import ArchitectureError, LoadError, MicrotomeError, ProbeError
from microtome.model.families import llama
from microtome.model.families.family import family
from microtome.model.families.taps import split


@pytest.fixture(scope="module")
def saved(make_gpt2, tokenizer, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    make_gpt2().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A copy that a test may break."""
    return shutil.copytree(saved, tmp_path / "model")


@pytest.fixture(autouse=True)
def offline(monkeypatch):
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


class TestWhatIsThere:
    def test_a_directory_gives_the_model_that_was_saved(self, saved, make_gpt2):
        model = mt.load(saved, device="cpu")
        wanted = make_gpt2().state_dict()
        assert all(torch.equal(w, model.hf.state_dict()[name]) for name, w in wanted.items())
        assert (model.name, model.dtype, model.hf.training) == (str(saved), torch.float32, False)
        assert model.anatomy.dims.n_layers == 3
        assert mt.load(str(saved), device="cpu").weight_hash == model.weight_hash

    def test_a_model_in_memory_is_used_as_it_is(self, make_gpt2, tokenizer):
        hf = make_gpt2()
        model = mt.load(hf, tokenizer=tokenizer)
        assert model.hf is hf
        assert model.tokenizer is tokenizer

    @pytest.mark.parametrize(
        "dtype",
        ["float64", "torch.float64", "bfloat16", torch.float64, "auto", None, {"": "float64"}],
    )
    def test_the_type_is_the_one_asked_for(self, saved, dtype):
        wanted = dtype[""] if isinstance(dtype, dict) else dtype
        wanted = "float32" if wanted in ("auto", None) else wanted
        assert str(mt.load(saved, dtype=dtype, device="cpu").dtype).endswith(
            str(wanted).split(".")[-1]
        )

    def test_a_tokenizer_may_be_given_in_the_place_of_the_saved(self, folder, tokenizer):
        (folder / "tokenizer.json").unlink()
        assert mt.load(folder, tokenizer=tokenizer, device="cpu").tokenizer is tokenizer

    def test_options_are_passed_on(self, saved):
        model = mt.load(saved, attn_implementation="eager", device="cpu")
        assert model.hf.config._attn_implementation == "eager"

    def test_weights_as_gpt2_was_published_are_read(self, folder, make_gpt2):
        """Without a prefix, with the attention masks, and the tied embedding once."""
        weights = load_file(folder / "model.safetensors")
        assert "lm_head.weight" not in weights
        published = {n.removeprefix("transformer."): w for n, w in weights.items()}
        published["h.0.attn.bias"] = torch.ones(1, 1, 32, 32).tril()
        published["h.0.attn.masked_bias"] = torch.tensor(-1e4)
        save_file(published, folder / "model.safetensors", metadata={"format": "pt"})
        model = mt.load(folder, device="cpu")
        wanted = make_gpt2().state_dict()
        assert all(torch.equal(w, model.hf.state_dict()[name]) for name, w in wanted.items())

    def test_the_weight_hash_is_of_the_weights(self, make_gpt2, tokenizer):
        one, same, other = (mt.load(make_gpt2(seed=s), tokenizer=tokenizer) for s in (0, 0, 1))
        assert one.weight_hash == same.weight_hash != other.weight_hash
        assert len(one.weight_hash) == 64

    def test_sites_are_listed_with_their_sizes(self, tiny):
        table = tiny.sites()
        assert table.loc["z", "sizes"] == "pos, 4, 8"
        assert table.loc["mlp_post", "sizes"] == "pos, 128"
        assert table.loc["z", "layers"] == 3
        assert table.loc["z", "module"] == "input of transformer.h.*.attn.c_proj"
        assert table.loc["logits", "module"] == "output of the model"
        assert [table.index[0], table.index[-1]] == ["embed", "logits"]


class TestAModelInMemory:
    def test_needs_its_tokenizer(self, make_gpt2):
        with pytest.raises(LoadError, match=r"needs its tokenizer.*tokenizer="):
            mt.load(make_gpt2())

    def test_in_training_mode_is_refused(self, make_gpt2, tokenizer):
        with pytest.raises(LoadError, match=r"training mode.*model.eval\(\)"):
            mt.load(make_gpt2().train(), tokenizer=tokenizer)

    def test_with_a_part_in_training_mode_is_refused(self, make_gpt2, tokenizer):
        hf = make_gpt2()
        hf.transformer.h[1].attn.resid_dropout.train()
        with pytest.raises(LoadError, match=r"a part of it, is in.*h.1.attn.resid_dr.*model.eval"):
            mt.load(hf, tokenizer=tokenizer)

    def test_with_embeddings_that_were_made_larger_is_taken(self, make_gpt2, tokenizer):
        hf = make_gpt2(tie_word_embeddings=False)
        hf.resize_token_embeddings(len(tokenizer) + 3, mean_resizing=False)
        assert hf.lm_head.training  # as transformers makes a new one
        model = mt.load(hf, tokenizer=tokenizer)
        effects = mt.sweep(model, BERLIN, "zero L*.z.h*@-1", metrics="kl", progress=False)
        assert effects.data.kl.values.max() > 0

    def test_with_a_layer_whose_hook_asks_for_training_mode_is_refused(self, make_gpt2, tokenizer):
        def noisy(module, args, output):
            return output + torch.rand_like(output) if module.training else output

        hf = make_gpt2(tie_word_embeddings=False)
        hf.transformer.wte.register_forward_hook(noisy)
        model = mt.load(hf, tokenizer=tokenizer)
        hf.transformer.wte.train()
        with pytest.raises(MicrotomeError, match=r"training mode \(transformer.wte\)"):
            model.run("a")
        with pytest.raises(LoadError, match=r"training mode \(transformer.wte\).*model.eval"):
            mt.load(hf, tokenizer=tokenizer)

    @pytest.mark.parametrize("change", [{"dtype": "float64"}, {"device": "cpu"}, {"revision": "x"}])
    def test_is_not_changed(self, make_gpt2, tokenizer, change):
        with pytest.raises(LoadError, match=f"{next(iter(change))} cannot be changed here"):
            mt.load(make_gpt2(), tokenizer=tokenizer, **change)

    def test_is_copied_and_not_pickled(self, tiny):
        assert torch.equal(copy.deepcopy(tiny).run("a").logits, tiny.run("a").logits)
        assert copy.copy(tiny.anatomy.family) is tiny.anatomy.family
        with pytest.raises(MicrotomeError, match=r"A model is not pickled: .*save_pretrained"):
            pickle.dumps(tiny)

    def test_with_an_empty_tokenizer_is_refused(self, make_gpt2):
        empty = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()))
        with pytest.raises(LoadError, match=r"empty.*tokenizer="):
            mt.load(make_gpt2(), tokenizer=empty)

    def test_with_more_tokens_than_it_knows_is_refused(self, tokenizer):
        from transformers import GPT2LMHeadModel

        small = GPT2LMHeadModel(
            GPT2Config(n_layer=1, n_head=2, n_embd=8, vocab_size=50, bos_token_id=0, eos_token_id=0)
        ).eval()
        with pytest.raises(LoadError, match=rf"{len(tokenizer)} tokens, and .* knows 50"):
            mt.load(small, tokenizer=tokenizer)


class TestWhatIsNotThere:
    @pytest.mark.parametrize("name", ["nobody-at-all/nothing", "no-such-model"])
    def test_a_hub_id_that_is_not_cached_says_how_to_get_it(self, name):
        with pytest.raises(LoadError) as error:
            mt.load(name)
        assert f"config.json of {name}" in str(error.value)
        assert f"hf download {name} --include" in str(error.value)

    @pytest.mark.parametrize("name", ["./nothing", "/no/such/place", "~/models/x", "a/b/c", "../x"])
    def test_what_can_only_be_a_place_here_is_not_looked_for_on_the_hub(
        self, name, tmp_path, monkeypatch
    ):
        (tmp_path / "empty").mkdir()
        monkeypatch.chdir(tmp_path / "empty")  # whatever lies around the checkout
        with pytest.raises(LoadError, match=r"There is no directory .*, nor a file") as error:
            mt.load(name)
        assert repr(os.path.expanduser(name)) in str(error.value)
        assert "hf download" not in str(error.value)

    def test_a_directory_of_nearly_that_name_is_named(self, folder):
        with pytest.raises(LoadError, match=f"Did you mean {folder.name!r}"):
            mt.load(f"{folder}x")

    @pytest.mark.parametrize(("name", "near"), [("nanoo", "nano"), ("smollm-2", "smollm2")])
    def test_a_name_that_is_nearly_that_of_a_packaged_model_is_told(self, name, near):
        with pytest.raises(LoadError, match=f"Did you mean {near!r}"):
            mt.load(name)

    def test_a_hub_that_cannot_be_reached_is_asked_once(self, monkeypatch):
        asked, slept = [], []

        def unknown(host, *_, **__):
            asked.append(host)
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

        monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(socket, "getaddrinfo", unknown)
        monkeypatch.setattr(time, "sleep", slept.append)
        with pytest.raises(LoadError, match=r"config.json of nobody-at-all/nothing.*hf download"):
            mt.load("nobody-at-all/nothing")
        assert len(asked) == 1
        assert not slept

    def test_a_directory_without_a_configuration(self, folder):
        (folder / "config.json").unlink()
        with pytest.raises(LoadError, match=r"has no config.json.*save_pretrained"):
            mt.load(folder)

    @pytest.mark.parametrize("text", ["{", "[]", "{}", '{"model_type": "no_such_model"}', ""])
    def test_a_configuration_that_is_none(self, folder, text):
        (folder / "config.json").write_text(text)
        with pytest.raises(LoadError, match=r"config.json"):
            mt.load(folder)

    def test_a_directory_without_weights(self, folder):
        (folder / "model.safetensors").unlink()
        with pytest.raises(LoadError, match=r"Cannot load.*model.safetensors"):
            mt.load(folder)

    def test_weights_in_a_format_that_can_run_code_are_not_read(self, folder):
        torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
        (folder / "model.safetensors").unlink()
        with pytest.raises(LoadError, match=r"safetensors"):
            mt.load(folder)

    @pytest.mark.parametrize("keep", [0, 4, 1000])
    def test_weights_cut_short(self, folder, keep):
        path = folder / "model.safetensors"
        path.write_bytes(path.read_bytes()[:keep])
        with pytest.raises(LoadError, match="Cannot load"):
            mt.load(folder)

    def test_a_weight_that_is_missing_is_not_made_up(self, folder):
        weights = load_file(folder / "model.safetensors")
        [name] = [n for n in weights if n.endswith("h.1.mlp.c_fc.weight")]
        del weights[name]
        save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
        with pytest.raises(LoadError, match=r"h\.1\.mlp\.c_fc\.weight is missing"):
            mt.load(folder)

    def test_an_output_layer_of_its_own_that_is_missing_is_not_made_up(self, folder):
        config = json.loads((folder / "config.json").read_text())
        config["tie_word_embeddings"] = False
        (folder / "config.json").write_text(json.dumps(config))
        with pytest.raises(LoadError, match=r"lm_head\.weight is missing"):
            mt.load(folder)

    @pytest.mark.parametrize("ignore", [True, False])
    def test_weights_of_another_size(self, folder, ignore):
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, "n_embd": 64}))
        words = r"Cannot load.*h\.0\.attn\.c_attn\.bias is \[96\], not \[192\].* more\."
        with pytest.raises(LoadError, match=words):
            mt.load(folder, ignore_mismatched_sizes=ignore)

    def test_a_directory_without_a_tokenizer(self, folder):
        for path in folder.glob("*token*"):
            path.unlink()
        with pytest.raises(LoadError, match=r"tokenizer"):
            mt.load(folder)

    @pytest.mark.parametrize(
        "dtype", ["int8", "float31", "tensor", torch.int32, float, {"": "int8"}]
    )
    def test_a_type_that_is_none(self, saved, dtype):
        with pytest.raises(LoadError, match=r"is no floating-point type; try 'float32'"):
            mt.load(saved, dtype=dtype)

    def test_two_names_of_one_option_are_refused(self, saved):
        with pytest.raises(LoadError, match="torch_dtype= is the old name of dtype=: give one"):
            mt.load(saved, dtype="float64", torch_dtype="float32")

    def test_a_device_that_is_not_there(self, saved):
        with pytest.raises(LoadError, match=r"no device 'no-such-device' here.*there are: cpu"):
            mt.load(saved, device="no-such-device")

    @pytest.mark.skipif(torch.accelerator.is_available(), reason="0 is a device here")
    def test_the_first_card_is_not_the_processor_where_there_is_none(self, saved):
        with pytest.raises(LoadError, match=r"no device '0' here.*there are: cpu"):
            mt.load(saved, device=0)


class TestArchitectures:
    @pytest.fixture
    def unknown(self):
        config = Starcoder2Config(
            hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
            num_key_value_heads=1, vocab_size=16, bos_token_id=0, eos_token_id=0,
        )  # fmt: skip
        return Starcoder2ForCausalLM(config).eval()

    def test_one_that_is_not_in_the_table_is_refused_by_name(self, unknown, tokenizer, tmp_path):
        unknown.save_pretrained(tmp_path)
        for given in (unknown, tmp_path):
            with pytest.raises(ArchitectureError) as error:
                mt.load(given, tokenizer=tokenizer)
            for words in ("starcoder2", "gpt2", "microtome/model/families"):
                assert words in str(error.value)

    def test_one_is_refused_before_its_weights_are_read(self, unknown, tokenizer, tmp_path):
        unknown.save_pretrained(tmp_path)
        (tmp_path / "model.safetensors").write_bytes(b"")
        with pytest.raises(ArchitectureError):
            mt.load(tmp_path, tokenizer=tokenizer)

    def test_a_row_of_ones_own_is_used_and_proved(self, unknown, tokenizer):
        row = family(
            "starcoder2", blocks="model.layers", reads="input_layernorm", final=("model.norm",),
            qkv=split("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
            out_proj="self_attn.o_proj", middle="post_attention_layernorm", mlp="mlp",
            down_proj="mlp.c_proj",
        )  # fmt: skip
        unknown.resize_token_embeddings(len(tokenizer))
        model = mt.load(unknown, tokenizer=tokenizer, family=row)
        assert model.anatomy.family.model_type == "starcoder2"
        effects = mt.sweep(
            model, "Berlin is", "zero L*.z.h*@-1", metrics="kl", verify="all", progress=False
        )
        ids = torch.tensor([model.encode("Berlin is")[0].tokens.ids])

        def silenced(module, args):
            z = args[0].clone()
            z[0, -1, 8:] = 0
            return (z,)

        with torch.no_grad():
            clean = unknown(ids).logits[0, -1].double().log_softmax(-1)
            handle = unknown.model.layers[0].self_attn.o_proj.register_forward_pre_hook(silenced)
            edited = unknown(ids).logits[0, -1].double().log_softmax(-1)
            handle.remove()
        by_hand = float((clean.exp() * (clean - edited)).sum())
        assert effects.data["kl"].sel(layer=0, head=1).item() == pytest.approx(by_hand, abs=1e-7)
        wrong = row.tapped(k=row.taps["v"], v=row.taps["k"])
        with pytest.raises(ProbeError, match="pattern · v is not z"):
            mt.load(unknown, tokenizer=tokenizer, family=wrong)

    @pytest.mark.parametrize("given", ["nano", "nowhere"])
    def test_a_row_for_what_is_loaded_by_name_is_refused(self, given):
        with pytest.raises(LoadError, match=f"family= is for a model in memory, not '{given}'"):
            mt.load(given, family=llama.LLAMA)

    def test_a_tokenizers_name_is_no_tokenizer(self, nano):
        with pytest.raises(LoadError, match="not its name 'gpt2'"):
            mt.load(nano.hf, tokenizer="gpt2")

    def test_a_tokenizer_of_another_library_is_refused(self, nano):
        with pytest.raises(LoadError, match=r"of transformers, not a Tokenizer.*processor\."):
            mt.load(nano.hf, tokenizer=nano.tokenizer.backend_tokenizer)

    @pytest.mark.parametrize("kind", [GPT2Model, GPT2ForSequenceClassification])
    def test_one_without_logits_is_refused(self, kind, tokenizer):
        config = GPT2Config(
            n_layer=1, n_head=2, n_embd=8, vocab_size=400, bos_token_id=0, eos_token_id=0
        )
        with pytest.raises(
            ArchitectureError, match=r"no language-model head.*AutoModelForCausalLM"
        ):
            mt.load(kind(config).eval(), tokenizer=tokenizer)


def test_a_prompt_longer_than_the_model_takes_is_refused(tiny):
    with pytest.raises(mt.MicrotomeError, match="tokens and the model takes 32"):
        tiny.run(" the" * 33)
    assert tiny.run(" the" * 32).logits.shape[1] == 32
    assert tiny.run(BERLIN).logits.shape[1] == 5


VERBS = {
    "sweep": lambda model: mt.sweep(model, "a", "zero L0.z", metrics="kl"),
    "lens": lambda model: mt.lens(model, "a"),
    "attribute_logits": lambda model: mt.attribute_logits(model, "a"),
    "attribute_neurons": lambda model: mt.attribute_neurons(model, "a", 0),
    "attention": lambda model: mt.attention(model, "a"),
    "head_scores": lambda model: mt.head_scores(model),
    "head_circuit": lambda model: mt.head_circuit(model, "L0.h0"),
    "head_card": lambda model: mt.head_card(model, "L0.h0", "a"),
    "edges": lambda model: mt.edges(model),
    "dose": lambda model: mt.dose(model, "zero L0.z", "a", "a b", over={}),
    "trace_facts": lambda model: mt.trace_facts(model, "a"),
    "train_translators": lambda model: mt.train_translators(model, ["a b"]),
    "score": lambda model: mt.circuits.score(model, "a"),
    "full": lambda model: mt.circuits.Circuit.full(model),
    "contrast": lambda model: mt.steering.contrast(model, ["a"], ["b"]),
    "of_text": lambda model: mt.steering.of_text(model, "a"),
    "of_token": lambda model: mt.steering.of_token(model, "a"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_what_is_no_loaded_model_is_told_how_to_become_one(verb, tiny):
    with pytest.raises(LoadError, match=r"not a GPT2LMHeadModel: load\(model, tokenizer=…\)\.$"):
        VERBS[verb](tiny.hf)
    with pytest.raises(LoadError, match=r"A model comes first.*not a str: load\('nano'\)\.$"):
        VERBS[verb]("nano")
