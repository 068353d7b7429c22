"""Models of few positions and words, and tokenizers that know more than their model."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedTokenizerFast,
)

import microtome as mt
from conftest import BERLIN, HEADS, LAYERS
from microtome.errors import ArchitectureError, LoadError, TokenError


def words(*known):
    table = {word: number for number, word in enumerate(known)}
    made = Tokenizer(models.WordLevel(table))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made)


@pytest.mark.parametrize("positions", [1, 2, 3, 5])
def test_a_model_of_few_positions(make_gpt2, tokenizer, positions):
    hf = make_gpt2(dtype=torch.float64, n_positions=positions)
    model = mt.load(hf, tokenizer=tokenizer)
    text = " ".join(BERLIN.split()[:positions])
    effects = mt.sweep(model, mt.Prompt(text, target=" in"), "zero L*.z.h*@-1", metrics="logit")
    assert effects.n_cells == LAYERS * HEADS
    again = mt.sweep(
        model, mt.Prompt(text, target=" in"), "zero L*.z.h*@-1", metrics="logit", engine="reference"
    )
    np.testing.assert_allclose(effects.data["logit"], again.data["logit"], atol=1e-10)


@pytest.mark.parametrize("vocabulary", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_a_model_of_few_words(vocabulary, seed):
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        initializer_range=0.3,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
    )
    model = mt.load(LlamaForCausalLM(config).eval(), tokenizer=words(*"abc"[:vocabulary]))
    effects = mt.sweep(model, mt.Prompt("a b", target=" b"), "zero L*.z.h*", metrics="prob")
    assert effects.n_cells == 4


def test_values_that_are_narrower_than_queries(tokenizer):
    """Of a rotary part of one coordinate Phi makes two."""
    config = PhiConfig(
        vocab_size=len(tokenizer),
        hidden_size=12,
        intermediate_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        rope_parameters={
            "rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.25
        },
    )  # fmt: skip
    model = mt.load(PhiForCausalLM(config).double().eval(), tokenizer=tokenizer)
    both = (
        mt.sweep(
            model,
            mt.Prompt(BERLIN, target=" in"),
            "zero L*.z.h*@-1",
            metrics="logit",
            engine=engine,
        )
        for engine in ("walk", "reference")
    )
    walked, again = (one.data["logit"] for one in both)
    np.testing.assert_allclose(walked, again, atol=1e-10)


class TestMoreTokensThanTheModelKnows:
    @pytest.fixture
    def more(self, tokenizer):
        added = copy.deepcopy(tokenizer)
        added.add_special_tokens({"pad_token": "[PAD]"})
        return added

    def test_added_ones_are_no_harm(self, make_gpt2, tokenizer, more):
        hf = make_gpt2()
        model = mt.load(hf, tokenizer=more)
        assert len(more) == model.anatomy.dims.d_vocab + 1
        wanted = mt.load(hf, tokenizer=tokenizer).run(BERLIN).logits
        assert torch.equal(model.run(BERLIN).logits, wanted)

    @pytest.mark.filterwarnings("ignore::microtome.errors.PromptWarning")
    @pytest.mark.parametrize(
        "prompt",
        [
            "Berlin [PAD]",
            mt.Prompt(BERLIN, target="[PAD]"),
            mt.Prompt(BERLIN, contrast="[PAD]"),
            mt.Prompt(BERLIN, donor="[PAD] is the capital of"),
        ],
        ids=["text", "target", "contrast", "donor"],
    )
    def test_they_are_refused_where_a_prompt_has_them(self, make_gpt2, more, prompt):
        model = mt.load(make_gpt2(), tokenizer=more)
        with pytest.raises(TokenError, match=r"'\[PAD\]' is token \d+.*resize.*load\(hf, tok"):
            model.encode(prompt)

    def test_who_gives_the_model_rows_after_it_was_loaded_is_told_to_load_it_again(
        self, make_gpt2, more
    ):
        model = mt.load(make_gpt2(), tokenizer=more)
        with pytest.raises(TokenError, match=r"len\(tokenizer\)\), and load that"):
            model.encode("Berlin [PAD]")
        model.hf.resize_token_embeddings(len(more), mean_resizing=False)
        again = r"knows \d+ tokens, and \d+ are expected.*load\(model\.hf, tokenizer=…\)"
        for use in (model.encode, model.run):
            with pytest.raises(ArchitectureError, match=again):
                use(BERLIN)
        mt.load(model.hf, tokenizer=more).run(mt.Prompt(ids=[4, len(more) - 1, 5]))

    def test_a_tokenizer_of_another_model_is_refused_all_the_same(self, make_gpt2, more):
        hf = make_gpt2()
        hf.resize_token_embeddings(len(more) - 2)
        with pytest.raises(LoadError, match="another model's"):
            mt.load(hf, tokenizer=more)

    def test_resized_and_padded_it_is_known(self, make_gpt2, more):
        hf = make_gpt2()
        hf.resize_token_embeddings(len(more), pad_to_multiple_of=64)
        model = mt.load(hf, tokenizer=more)
        assert model.anatomy.dims.d_vocab % 64 == 0
        assert len(model.run(BERLIN).top(model.anatomy.dims.d_vocab)) == model.anatomy.dims.d_vocab
