"""Whether a model is the published one is a question of its weights, not of its name."""

from __future__ import annotations

import copy

import pytest
from huggingface_hub import constants
from transformers import AutoModelForCausalLM, AutoTokenizer

import microtome as mt
from microtome.model import files
from microtome.model.published import is_published

NAME = "someone/tiny"
COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture(scope="module")
def cache(make_gpt2, tokenizer, tmp_path_factory):
    """A cache of the hub that holds one model."""
    root = tmp_path_factory.mktemp("hub")
    repository = root / "models--someone--tiny"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text(COMMIT)
    make_gpt2().save_pretrained(repository / "snapshots" / COMMIT)
    tokenizer.save_pretrained(repository / "snapshots" / COMMIT)
    return root


@pytest.fixture(autouse=True)
def only_cached(cache, monkeypatch):
    """All that is read is read from that cache, and nobody else is asked."""
    own = files.source_of
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(files, "_hub_answers", lambda *_: False)
    monkeypatch.setattr(files, "source_of", lambda *given: {**own(*given), "cache_dir": str(cache)})
    return cache


@pytest.fixture
def snapshot(cache):
    return cache / "models--someone--tiny" / "snapshots" / COMMIT


def in_memory(snapshot, name=NAME, **options):
    hf = AutoModelForCausalLM.from_pretrained(snapshot, **options).eval()
    hf.config.name_or_path = name
    return mt.load(hf, tokenizer=AutoTokenizer.from_pretrained(snapshot))


def test_a_model_loaded_by_its_name_is_it_until_it_is_changed():
    model = mt.load(NAME, device="cpu")
    assert model.revision == COMMIT
    assert is_published(model)
    model.hf.lm_head.weight.data.mul_(0.5)
    assert not is_published(model)
    model.hf.lm_head.weight.data.mul_(2)
    assert is_published(model)
    model.hf.lm_head.register_forward_hook(lambda module, given, logits: logits * 2)
    assert not is_published(model)


def test_a_model_loaded_in_another_type_is_it_too():
    assert is_published(mt.load(NAME, device="cpu", dtype="bfloat16"))


def test_a_model_in_memory_is_it_if_its_weights_are(snapshot):
    model = in_memory(snapshot)
    assert model.origin.loaded == "given in memory"
    assert is_published(model)
    model.hf.transformer.h[0].ln_1.bias.data.add_(1)
    assert not is_published(model)


def test_another_configuration_of_the_same_weights_is_not(snapshot):
    assert not is_published(in_memory(snapshot, scale_attn_weights=False))
    assert not is_published(mt.load(NAME, device="cpu", scale_attn_weights=False))


def test_another_tokenizer_is_not(tokenizer, snapshot):
    own = AutoTokenizer.from_pretrained(snapshot)
    assert is_published(mt.load(NAME, device="cpu", tokenizer=own))
    made = copy.deepcopy(tokenizer)
    made.add_special_tokens({"bos_token": "Berlin"})
    assert not is_published(mt.load(NAME, device="cpu", tokenizer=made))


def test_a_name_that_is_not_in_the_cache_proves_nothing(snapshot):
    assert not is_published(in_memory(snapshot, "gpt2-that-is-not-here"))


def test_a_directory_is_not(snapshot):
    assert not is_published(mt.load(snapshot, device="cpu"))
