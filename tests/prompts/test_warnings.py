"""What may not have been meant: special tokens in a text, two in front, texts of great length."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace

import pytest
import torch
from tokenizers import processors
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

import microtome as mt
from conftest import BERLIN
from microtome.errors import PromptError, PromptWarning
from microtome.prompts.encoding import encode
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokenizer import Tokenizer
from microtome.prompts.warnings import complaints

END = "<|endoftext|>"


def told(model, *prompts):
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.encode(prompts)
    assert all(one.category is PromptWarning for one in seen)
    return [str(one.message) for one in seen]


def test_a_special_token_in_a_text_is_warned_of_with_its_place(tiny):
    [message] = told(tiny, BERLIN, f"Berlin is{END} the", f"{END} again")
    assert f"'Berlin is{END} the' has '{END}' in it, at positions 2," in message
    assert "split_special_tokens=True" in message
    assert len(told(tiny, Prompt(BERLIN, donor=f"{BERLIN}{END}"))) == 1
    assert told(tiny, BERLIN, "endoftext") == []


def test_what_the_tokenizer_puts_in_front_is_there_once_and_that_is_said(real_models):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K")
    one, two = (encode(Prompt(text), tokenizer) for text in ("Once upon", "<s>Once upon"))
    assert two.tokens.ids == one.tokens.ids
    assert two.tokens.find("Once") == one.tokens.find("Once")
    [message] = complaints([one, two], masked=False)
    assert "begins with '<s>', which the tokenizer puts in front" in message
    assert "once, and not twice" in message
    [message] = complaints([encode(Prompt("Once", donor="<s>Once"), tokenizer)], masked=False)
    assert "removeprefix('<s>')" in message
    assert list(complaints([one], masked=False)) == []
    [message] = complaints([encode(Prompt("Once</s> upon"), tokenizer)], masked=False)
    assert "has '</s>' in it" in message


def test_of_a_chat_that_ends_in_an_answer_it_is_said_that_another_begins(real_models):
    """As of texts that a model is to go on with, or that a steering vector is made of."""
    template = "{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %} [assistant]"
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=template)
    asked = [{"role": "user", "content": "Once upon"}]
    begun = [*asked, {"role": "assistant", "content": "a time"}]
    for prompt in (Prompt.chat(begun, target=" there"), Prompt.chat(asked, donor=begun)):
        [message] = complaints([encode(prompt, tokenizer)], masked=False)
        assert (
            "ends in what the assistant says, 'a time', and the model's template begins" in message
        )
        assert "chat_options={'continue_final_message': True}" in message
        told = replace(prompt, chat_options={"continue_final_message": True})
        assert list(complaints([encode(told, tokenizer)], masked=False)) == []
    assert list(complaints([encode(Prompt.chat(asked), tokenizer)], masked=False)) == []


def test_a_tokenizer_that_puts_two_in_front_is_read_as_if_it_put_one(real_models):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K")
    whole = encode(Prompt("Once upon"), tokenizer).tokens.ids
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> <s> $A", special_tokens=[("<s>", tokenizer.bos_token_id)]
    )
    assert tokenizer("Once upon")["input_ids"][:2] == [tokenizer.bos_token_id] * 2
    one = encode(Prompt("Once upon", target=" a"), tokenizer)
    assert one.tokens.ids == whole
    assert one.notes == ()
    [message] = complaints([one], masked=False)
    assert "'<s>' in front of every text twice" in message


@pytest.mark.parametrize(
    ("front", "given", "read"),
    [
        ("<s>", "<s><s>Once", "<s>"),
        ("<s>", "<s>", ""),
        ("<s> <s>", "<s>Once", "<s>"),
        ("<s> <s>", "<s><s>Once", "<s>"),
        ("</s> <s>", "</s><s>Once", "</s><s>"),
        ("</s> <s>", "</s><s></s><s>Once", "</s><s>"),
        ("</s> <s>", "<s>Once", "</s><s>"),
    ],
)
def test_whatever_a_tokenizer_puts_in_front_is_read_once(real_models, front, given, read):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K")
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{front} $A", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    wanted = given if not read else read + given.rpartition(">")[2]
    one = encode(Prompt("Once", donor=given), tokenizer)
    assert list(one.donor.ids) == tokenizer(wanted, add_special_tokens=False)["input_ids"]
    assert any("once" in text for text in complaints([one], masked=False))


def test_the_name_of_a_file_of_prompts_is_run_as_a_text_and_that_is_said(tiny, tmp_path):
    name = str(tmp_path / "prompts.jsonl")
    assert list(complaints([encode(Prompt(name), tiny.tokenizer)], masked=False)) == []
    (tmp_path / "prompts.jsonl").touch()
    [message] = complaints([encode(Prompt(name), tiny.tokenizer)], masked=False)
    assert "is the name of a file, and is run as a text" in message
    assert f"Prompts.read({name!r}), on the command line --prompts" in message


def test_a_text_that_ends_in_a_space_is_warned_of_where_something_is_to_follow(tiny):
    [message] = told(tiny, Prompt("Berlin is ", target=" Germany"))
    assert "'Berlin is ' ends in a space" in message
    assert told(tiny, "Berlin is ") == []


@pytest.mark.parametrize(
    ("target", "contrast"),
    [
        ({"target": " capital"}, {"contrast": " capital"}),
        ({"target": " capital"}, {"contrasts": [" capital"]}),
        ({"targets": [" the", " capital"]}, {"contrasts": [" capital", " the"]}),
        ({"target": " capital of Berlin"}, {"contrast": " capital of Berlin"}),
    ],
)
def test_a_target_that_is_its_contrast_is_warned_of(tiny, target, contrast):
    equal = Prompt("Berlin is the", **target, **contrast)
    [message] = told(tiny, Prompt("Berlin is the", **target), equal)
    assert "The target of 'Berlin is the' is its contrast, too: " in message
    assert "Give another contrast" in message
    assert told(tiny, Prompt("Berlin is the", target=" capital", contrast=" of")) == []
    assert told(tiny, Prompt("Berlin is the")) == []


def test_the_number_of_a_token_is_the_token(tiny):
    [token] = tiny.tokenizer(" capital")["input_ids"]
    [message] = told(tiny, Prompt("Berlin is the", target=" capital", contrast=token))
    assert f"' capital' ({token})" in message


def test_masks_and_unknown_words_are_no_special_tokens(bert64):
    assert told(bert64, "pay [MASK] attention", "pay unheardof attention") == []
    [message] = told(bert64, "pay [SEP] attention")
    assert "has '[SEP]' in it, at positions 2" in message


@pytest.fixture(scope="module")
def rotary(tokenizer):
    """A rotary model that was made for six tokens, and takes more."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_attention_heads": 2}
    config = LlamaConfig(
        vocab_size=len(tokenizer), num_hidden_layers=1, max_position_embeddings=6, **sizes
    )
    hf = LlamaForCausalLM(config).eval()
    assert sum(weight.numel() for weight in hf.parameters()) < 20_000
    return mt.load(hf, tokenizer=tokenizer)


def test_a_text_longer_than_the_model_was_made_for_is_warned_of(rotary):
    assert rotary.anatomy.dims.n_positions is None
    assert told(rotary, BERLIN) == []
    [message] = told(rotary, BERLIN, f"{BERLIN} Germany, and")
    assert "has 8 tokens, and the model was made for up to 6" in message
    assert "max_position_embeddings" in message
    assert len(told(rotary, Prompt(BERLIN, donor=f"{BERLIN} Germany, and"))) == 1


@pytest.mark.parametrize(
    ("rotary", "longest"),
    [
        ({"rope_type": "dynamic", "factor": 2.0}, None),
        ({"rope_type": "linear", "factor": 2.0}, 6),
        ({"rope_type": "yarn", "factor": 3.0, "original_max_position_embeddings": 4}, 12),
    ],
    ids=lambda value: value["rope_type"] if isinstance(value, dict) else None,
)
def test_how_long_a_text_may_be_is_what_its_rotary_embedding_is_stretched_to(
    tokenizer, rotary, longest
):
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        max_position_embeddings=6,
        rope_parameters={"rope_theta": 10000.0, **rotary},
    )
    model = mt.load(LlamaForCausalLM(config).eval(), tokenizer=tokenizer)
    if longest is None:
        assert told(model, 4 * BERLIN) == []
        return
    words = BERLIN.split()
    fits = " ".join((3 * words)[:longest])
    assert len(model.tokenizer(fits)["input_ids"]) == longest
    assert told(model, fits) == []
    assert len(told(model, f"{fits} the")) == 1


def test_a_text_that_does_not_fit_at_all_is_refused(tiny):
    with pytest.raises(PromptError, match=r"33 tokens and the model takes 32"):
        tiny.encode(" is" * 33)


def test_fast_tokenizers_are_what_is_asked_for(tokenizer, wordpiece, real_models):
    for one in (tokenizer, wordpiece, AutoTokenizer.from_pretrained(real_models / "stories260K")):
        assert isinstance(one, Tokenizer)
    assert not isinstance(object(), Tokenizer)


@pytest.mark.parametrize("pad", ["[PAD]", END])
def test_ids_with_padding_at_an_end_are_warned_of(tiny, pad):
    tokenizer = copy.deepcopy(tiny.tokenizer)
    tokenizer.add_special_tokens({"pad_token": pad})
    rows = tokenizer([BERLIN, "Berlin is"], padding=True)["input_ids"]
    given = [encode(Prompt(ids=ids), tokenizer) for ids in rows]
    assert list(complaints(given[:1], masked=False)) == []
    [message] = complaints(given, masked=False)
    assert "begin or end with the tokenizer's padding" in message
    if pad == END:  # of a tokenizer that somebody else set so
        given = [encode(Prompt(ids=ids), tiny.tokenizer) for ids in rows]
        assert list(complaints(given[:1], masked=False)) == []
        assert list(complaints(given, masked=False)) == [message]
    own = encode(Prompt(ids=[tokenizer.eos_token_id, *rows[0]]), tokenizer)
    assert list(complaints([own], masked=False)) == []
