"""Prompts: tokens and their places, targets, donors, and files of prompts."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, BatchEncoding, PreTrainedTokenizerFast

import microtome as mt
from conftest import BERLIN, CAT, PARIS
from microtome.errors import EditError, PromptError, PromptWarning, TokenError
from microtome.prompts.encoding import encode, token_id
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.prompts.tokens import Tokens


class TestPrompt:
    @pytest.mark.parametrize("text", ["", " ", "\n\t"])
    def test_an_empty_text_or_donor_is_refused(self, text):
        with pytest.raises(PromptError, match="text is empty"):
            Prompt(text)
        with pytest.raises(PromptError, match="donor is empty"):
            Prompt("a", donor=text)

    @pytest.mark.parametrize("name", ["last", "mask", "two words", "1st", "", "a-b", 1])
    def test_a_role_that_an_address_could_not_name_is_refused(self, name):
        with pytest.raises(PromptError, match="cannot be the name of a role"):
            Prompt("a", roles={name: 0})

    def test_it_keeps_its_own_copy_of_the_roles(self):
        roles = {"subject": "Berlin"}
        prompt = Prompt(BERLIN, roles=roles)
        roles["subject"] = "Paris"
        assert dict(prompt.roles) == {"subject": "Berlin"}
        with pytest.raises(TypeError):
            prompt.roles["subject"] = "Paris"

    def test_equal_prompts_are_equal_and_hash_the_same(self):
        one, two = (Prompt("a", target=" b", roles={"s": 0}) for _ in range(2))
        assert one == two
        assert hash(one) == hash(two)
        assert one != Prompt("a", target=" b")

    def test_as_dict_makes_the_same_prompt_again(self):
        prompt = Prompt("a b", donor="c d", target=" e", roles={"s": ("a", "c")})
        assert Prompt(**prompt.as_dict()) == prompt

    def test_it_can_be_copied(self):
        prompt = Prompt("a", roles={"s": 0})
        for again in (copy.copy(prompt), copy.deepcopy(prompt), pickle.loads(pickle.dumps(prompt))):
            assert again == prompt
            assert dict(again.roles) == {"s": 0}
        assert copy.deepcopy(Prompt("a", target="")).target == ""

    @pytest.mark.parametrize("text", [None, 3])
    def test_a_text_that_is_none_is_refused(self, text):
        with pytest.raises(PromptError, match=f"text must be text, not {text}"):
            Prompt(text)
        with pytest.raises(PromptError, match=f"text must be text, not {text}"):
            Prompts(["a", text])

    @pytest.mark.parametrize("name", ["donor", "target", "contrast"])
    def test_the_other_texts_are_texts_too(self, name):
        with pytest.raises(PromptError, match=rf"{name} must be text.*, not 1\.5"):
            Prompt("a", **{name: 1.5})

    @pytest.mark.parametrize("place", [1.5, None, True, ("a", "b", "c"), ("a",), ("a", None), {}])
    def test_a_place_that_is_none_is_refused(self, place):
        with pytest.raises(PromptError, match=r"place of role 's' is .*a word, a whole number"):
            Prompt(BERLIN, roles={"s": place})

    @pytest.mark.parametrize("roles", ["b", 3, [("s", 0)], ""])
    def test_roles_that_are_none_are_refused(self, roles):
        with pytest.raises(PromptError, match="names with their places"):
            Prompt(BERLIN, roles=roles)

    def test_texts_and_numbers_may_be_numpys_or_tensors_and_a_pair_may_be_a_list(self):
        text, seven = np.str_, torch.tensor(7)
        prompt = Prompt(
            text(BERLIN), donor=text("a"), target=text(" b"), contrasts=[text(" c"), seven],
            roles={"s": np.int64(1), "o": [text("is"), np.int32(-1)], "t": seven},
            meta={"n": np.int64(3), "kind": text("x"), "is": np.bool_(True)},
        )  # fmt: skip
        assert repr(prompt) == repr(Prompt(
            BERLIN, donor="a", target=" b", contrasts=[" c", 7],
            roles={"s": 1, "o": ("is", -1), "t": 7}, meta={"n": 3, "kind": "x", "is": True},
        ))  # fmt: skip
        assert repr(Prompt(ids=[seven, 8], target=seven)) == "Prompt(ids=[7, 8], target=7)"


class TestPrompts:
    def test_strings_are_prompts_and_slices_are_too(self):
        prompts = Prompts(["a", Prompt("b", target=" c"), "d"])
        assert [p.text for p in prompts] == ["a", "b", "d"]
        assert isinstance(prompts[1:], Prompts)
        assert prompts[-1] == Prompt("d")

    def test_one_prompt_a_string_and_several_are_all_taken(self):
        for given_ in ("a", Prompt("a"), ["a"], (p for p in ["a"]), Prompts(["a"])):
            assert list(Prompts.of(given_)) == [Prompt("a")]

    def test_none_at_all_is_refused(self):
        with pytest.raises(PromptError, match="no prompts"):
            Prompts([])

    @pytest.mark.parametrize(
        ("given_", "says"),
        [
            (None, "not None"),
            (5, "not int"),
            (b"a", "not bytes"),
            ({"text": "a"}, r"not dict. A prompt of fields is Prompt\(\*\*fields\)"),
            (pd.DataFrame({"text": ["a"]}), r"not DataFrame. .* as Stream\(table\)"),
            (pd.Series({"text": "a", "target": " b"}), r"not Series. .* Prompt\(\*\*fields\)"),
            ([{"text": "a", "n": 1}], r"as Stream\(rows\); given is a dict of text, n\."),
            ([pd.Series({"text": "a"})], "given is a Series of text"),
            (Path("a.jsonl"), r"read by Prompts\.read\(path\)"),
            (
                BatchEncoding({"input_ids": [[5]]}),
                r"not BatchEncoding. .* of texts without padding",
            ),
        ],
    )
    def test_what_is_no_prompts_is_refused_and_its_parts_are_not_read(self, tiny64, given_, says):
        for taken in (Prompts, Prompts.of, lambda given: tiny64.run("a", reference=given)):
            with pytest.raises(PromptError, match=says):
                taken(given_)

    def test_one_text_where_several_are_expected_is_not_its_letters(self, tiny64):
        with pytest.raises(PromptError, match="not str"):
            Prompts("Berlin")
        mean = 'mean(over="prompts") L1.z.h0'
        with pytest.raises(EditError, match="at least two reference prompts"):
            tiny64.run("The cat", mean, reference="The cat")


class TestTokens:
    def test_pieces_and_offsets_spell_the_text(self, tokenizer):
        tokens = encode(Prompt(BERLIN), tokenizer).tokens
        assert tokens.pieces == ("Berlin", " is", " the", " capital", " of")
        assert "".join(BERLIN[a:b] for a, b in tokens.offsets) == BERLIN
        assert tokens.ids == tuple(tokenizer(BERLIN)["input_ids"])
        assert str(tokens) == "0:'Berlin' 1:' is' 2:' the' 3:' capital' 4:' of'"

    @given(
        st.lists(st.from_regex("[a-z]{1,4}", fullmatch=True), min_size=1, max_size=6, unique=True)
    )
    def test_a_word_is_found_where_its_last_token_stands(self, names):
        pieces = [names[0]]
        where = {names[0]: 0}
        for name in names[1:]:  # a longer word is two tokens
            cut = max(1, len(name) // 2)
            pieces += [" " + name[:cut], name[cut:]] if name[cut:] else [" " + name]
            where[name] = len(pieces) - 1
        tokens = Tokens.of_texts(*pieces)
        assert {name: tokens.find(name) for name in names} == where

    @pytest.mark.parametrize(
        ("word", "position"),
        [("cat", 1), (" cat", 1), ("cat sat", 2), ("sat,", 3), (",", 3), ("The cat", 1), ("é", 5)],
    )
    def test_a_word_may_be_several_or_a_sign(self, word, position):
        tokens = Tokens.of_texts("The", " cat", " sat", ",", " caf", "é", " catfish")
        if word == "é":
            with pytest.raises(PromptError, match="not in the prompt"):
                tokens.find(word)  # the end of a word is not the word
            return
        assert tokens.find(word) == position

    def test_a_character_of_several_tokens_is_at_its_last(self, tokenizer):
        tokens = encode(Prompt("The 🐈 sat"), tokenizer).tokens
        assert len(tokens) > 6  # the cat is bytes
        assert tokens.pieces[tokens.find("🐈") + 1] == " sat"

    def test_a_special_token_in_front_has_no_place_in_the_text(self):
        tokens = Tokens("a b", (0, 1, 2), ("<s>", "a", " b"), ((0, 0), (0, 1), (1, 3)))
        assert (tokens.find("a"), tokens.find("b")) == (1, 2)

    def test_a_prompt_longer_than_the_model_takes_is_refused(self, tokenizer):
        assert len(encode(Prompt(BERLIN), tokenizer, 5).tokens) == 5
        with pytest.raises(PromptError, match="5 tokens and the model takes 4"):
            encode(Prompt(BERLIN), tokenizer, 4)
        with pytest.raises(PromptError, match="5 tokens and the model takes 4"):
            encode(Prompt(CAT, donor=BERLIN), tokenizer, 4)

    def test_a_tokenizer_that_cannot_say_where_tokens_stand_is_refused(self):
        class Slow:
            is_fast = False

        with pytest.raises(PromptError, match=r"Slow.*fast version"):
            encode(Prompt("a"), Slow())


class TestRoles:
    def test_a_role_is_a_word_or_a_position(self, tokenizer):
        roles = {"subject": "Berlin", "end": -1, "noun": "capital"}
        tokens = encode(Prompt(BERLIN, roles=roles), tokenizer).tokens
        assert [tokens.role(r) for r in ("subject", "end", "noun", "last")] == [0, 4, 3, 4]

    def test_a_role_that_is_not_in_the_text_is_found_before_anything_runs(self, tokenizer):
        with pytest.raises(PromptError, match="'Paris' is not in the prompt"):
            encode(Prompt(BERLIN, roles={"subject": "Paris"}), tokenizer)
        for place in (5, -6):
            with pytest.raises(PromptError, match=f"'s' is at position {place}.*5 tokens"):
                encode(Prompt(BERLIN, roles={"s": place}), tokenizer)

    def test_in_a_donor_of_the_same_length_a_role_keeps_its_position(self, tokenizer):
        prompt = Prompt(BERLIN, donor=PARIS, roles={"subject": "Berlin"})
        donor = encode(prompt, tokenizer).donor
        assert donor.role("subject") == 0

    def test_a_pair_gives_the_donor_its_own_place(self, tokenizer):
        prompt = Prompt(BERLIN, donor=CAT, roles={"subject": ("Berlin", "cat"), "verb": (1, -1)})
        one = encode(prompt, tokenizer)
        assert (one.tokens.role("subject"), one.donor.role("subject")) == (0, 1)
        assert (one.tokens.role("verb"), one.donor.role("verb")) == (1, 2)

    def test_in_a_donor_of_another_length_a_single_place_is_the_same_word(self, tokenizer):
        donor = "Paris is in the capital"
        prompt = Prompt("Berlin is the capital of Italy", donor=donor, roles={"n": "capital"})
        one = encode(prompt, tokenizer)
        assert (len(one.tokens), len(one.donor)) == (6, 5)
        assert (one.tokens.role("n"), one.donor.role("n"), one.donor.role("last")) == (3, 4, 4)


class TestTargets:
    def test_target_and_contrast_are_token_ids(self, tokenizer):
        one = encode(Prompt(BERLIN, target=" Germany", contrast=" France"), tokenizer)
        assert tokenizer.decode([one.target]) == " Germany"
        assert tokenizer.decode([one.contrast]) == " France"
        assert encode(Prompt(BERLIN), tokenizer).target is None

    def test_a_target_that_is_nothing_is_refused(self, tokenizer):
        with pytest.raises(TokenError, match=r"splits into 0 \(nothing\)"):
            encode(Prompt(BERLIN, target=""), tokenizer)

    def test_a_token_by_itself_shows_its_split_and_a_near_miss(self, tokenizer):
        with pytest.raises(TokenError, match=r"splits into 2 \(' the', ' cat'\)"):
            token_id(" the cat", tokenizer)
        with pytest.raises(TokenError, match="Did you mean ' Germany' with a leading space"):
            token_id("Germany", tokenizer)
        with pytest.raises(TokenError, match=r"'' is not one token.* a single token\.$"):
            token_id("", tokenizer)  # a space alone would be no nearer

    def test_a_needless_leading_space_is_a_near_miss_too(self, tokenizer):
        with pytest.raises(TokenError, match=r"Did you mean 'When' without the leading space\?"):
            token_id(" When", tokenizer)

    def test_gpt2s_own_tokens(self, gpt2_tokenizer):
        assert token_id(" curious", gpt2_tokenizer) == 11040
        one = encode(Prompt("Berlin is the capital of", target=" Germany"), gpt2_tokenizer)
        assert len(one.tokens) == 6
        assert "".join(one.tokens.pieces) == "Berlin is the capital of"
        assert one.tokens.find("Berlin") == 1  # "Ber", "lin"


class TestFiles:
    def write(self, folder, name, text):
        path = folder / name
        path.write_text(text, encoding="utf-8")
        return path

    WANTED = (
        Prompt("Berlin is", target=" the", contrast=" of", donor="Paris is", roles={"s": "Berlin"}),
        Prompt("The cat", roles={"s": ("cat", 0), "e": -1}),
    )

    def test_jsonl_gives_every_field(self, tmp_path):
        lines = [json.dumps(p.as_dict()) for p in self.WANTED]
        path = self.write(tmp_path, "p.jsonl", "\n\n".join(lines) + "\n")
        assert tuple(Prompts.read(path)) == self.WANTED

    def test_csv_gives_every_field_and_keeps_leading_spaces(self, tmp_path):
        text = (
            "text,target,contrast,donor,roles\n"
            'Berlin is, the, of,Paris is,"{""s"": ""Berlin""}"\n'
            'The cat,,,,"{""s"": [""cat"", 0], ""e"": -1}"\n'
        )
        assert tuple(Prompts.read(self.write(tmp_path, "p.csv", text))) == self.WANTED

    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("p.csv", "text,target\nBerlin is, the\n"),
            ("p.jsonl", '{"text": "Berlin is", "target": " the"}'),
        ],
    )
    def test_a_byte_order_mark_as_spreadsheets_write_it_is_no_part_of_a_name(
        self, tmp_path, name, text
    ):
        (tmp_path / name).write_text(text, encoding="utf-8-sig")
        assert Prompts.read(tmp_path / name)[0] == Prompt("Berlin is", target=" the")

    @pytest.mark.parametrize(
        ("name", "text", "says"),
        [
            ("p.jsonl", "", ["holds no prompts"]),
            ("p.csv", "text\n", ["holds no prompts"]),
            ("p.jsonl", '{"text": "a"}\n{"text": ', ["line 2", "not JSON"]),
            ("p.jsonl", '["a"]', ["line 1", "expected an object", "['a']"]),
            ("p.jsonl", '{"target": " a"}', ["line 1", "'text' is missing"]),
            ("p.jsonl", '{"text": "a", "tagret": " b"}', ["'tagret'", "Did you mean 'target'?"]),
            ("p.jsonl", '{"text": 3}', ["text must be text, not 3"]),
            ("p.csv", "text,target\na, b, c\n", ["line 2", "more values than the header"]),
            ("p.csv", "text,roles\na,b\n", ["line 2", "not JSON"]),
            ("p.csv", "text,roles\na,[1]\n", ["line 2", "expected an object"]),
            ("p.csv", ",text\n0,a\n", ["line 2: '0' is in a column without", "index=False"]),
            ("p.csv", "text,target,\na, b,\n, b,\n", ["line 3", "'text' is missing"]),
            ("p.csv", "text,target\n, b\n", ["line 2", "'text' is missing"]),
            ("p.csv", 'text,target\n"a\nb",\n\n, b\n', ["line 5", "'text' is missing"]),
            ("p.csv", 'text,roles\na,"{""s"": 1.5}"\n', ["line 2", "'s' is 1.5"]),
            ("p.txt", "a", [".jsonl, .csv, .tsv, .json, .parquet"]),
        ],
    )
    def test_a_file_that_is_wrong_says_where(self, tmp_path, name, text, says):
        with pytest.raises(PromptError) as error:
            Prompts.read(self.write(tmp_path, name, text))
        for words in says:
            assert words in str(error.value)

    def test_a_file_that_is_not_there_is_a_prompt_error(self, tmp_path):
        for path in (tmp_path / "none.jsonl", tmp_path):
            with pytest.raises(PromptError):
                Prompts.read(path)

    @pytest.mark.parametrize(
        "line",
        [
            '{"text": null}',
            '{"text": "a", "roles": "b"}',
            '{"text": "a", "roles": [1]}',
            '{"text": "a", "roles": {"s": {}}}',
        ],
    )
    def test_values_of_a_wrong_kind_are_a_prompt_error(self, tmp_path, line):
        with pytest.raises(PromptError, match=r"p\.jsonl, line 1: (A prompt's|The place of)"):
            Prompts.read(self.write(tmp_path, "p.jsonl", line))

    def test_bytes_that_are_not_utf8_are_a_prompt_error(self, tmp_path):
        (tmp_path / "p.csv").write_bytes(b"text\ncaf\xe9\n")
        with pytest.raises(PromptError, match=r"p.csv is not UTF-8 text .*save it as UTF-8"):
            Prompts.read(tmp_path / "p.csv")

    def test_a_wrong_prompt_names_its_line(self, tmp_path):
        path = self.write(tmp_path, "p.jsonl", '{"text": "a"}\n{"text": " "}\n')
        with pytest.raises(PromptError, match=r"p.jsonl, line 2: A prompt's text is empty"):
            Prompts.read(path)


# ------------------------------------------------------------------ tokenizers of all habits

TEXT = "the cat sat on a mat"


def wordy(template=None, side=None):
    """A tokenizer of words, which adds tokens by a template, and was saved with padding on."""
    words = {word: n for n, word in enumerate(["?", "<s>", "</s>", "<pad>", *TEXT.split()])}
    made = Tokenizer(models.WordLevel(words, unk_token="?"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    if template is not None:
        special = [("<s>", 1), ("</s>", 2)]
        made.post_processor = processors.TemplateProcessing(single=template, special_tokens=special)
    if side is not None:
        made.enable_padding(direction=side, pad_id=3, pad_token="<pad>", length=12)
        made.enable_truncation(4)
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="?",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        padding_side=side or "right",
    )


@pytest.mark.parametrize("side", [None, "left", "right"])
@pytest.mark.parametrize("template", [None, "<s> $A", "$A </s>", "<s> $A </s>"])
def test_tokens_are_those_of_the_text_whatever_the_tokenizer_pads(tmp_path, side, template):
    wordy(template, side).save_pretrained(tmp_path)
    saved = AutoTokenizer.from_pretrained(tmp_path)
    own = [4, 5, 6, 7, 8, 9]
    first = [1] if template is not None and template.startswith("<s>") else []
    last = [2] if template is not None and template.endswith("</s>") else []
    for tokenizer in (wordy(template, side), saved):
        one = encode(Prompt(TEXT, target="mat", roles={"who": "cat"}), tokenizer)
        assert list(one.tokens.ids) == [*first, *own, *last]
        assert one.tokens.added == (*[True] * len(first), *[False] * 6, *[True] * len(last))
        assert one.tokens.find("the") == len(first)
        assert one.tokens.role("who") == len(first) + 1
        assert one.tokens.role("last") == len(one.tokens) - 1
        assert one.target == 9


def test_a_tokenizer_that_closes_texts_is_warned_of(make_gpt2):
    hf = make_gpt2()
    model = mt.load(hf, tokenizer=wordy("<s> $A </s>"))
    with pytest.warns(PromptWarning, match=r"'</s>' after every text.*add_eos_token.*prob@-2"):
        model.encode(TEXT)
    mt.load(hf, tokenizer=wordy("<s> $A")).encode(TEXT)  # which is no reason


def test_behind_a_closed_text_no_target_of_several_tokens_is_measured():
    """Its tokens but the last would be written behind the one that closes the text."""
    with pytest.raises(
        TokenError, match=r"is 2 tokens, and the tokenizer closes texts with '</s>'"
    ):
        encode(Prompt("the cat", target="sat on"), wordy("<s> $A </s>"))
    assert encode(Prompt("the cat", target="sat on"), wordy("<s> $A")).target == (6, 7)


def switching(tokenizer, times):
    """One that another thread switches so often, between what it is told and what it reads."""
    made = copy.deepcopy(tokenizer)
    own, left = made.set_truncation_and_padding, [*range(times)]

    def between(*given, **named):
        own(*given, **named)
        if left and left.pop() % 2:
            made.backend_tokenizer.enable_truncation(2)
        elif left:
            made.backend_tokenizer.enable_padding(length=40)

    made.set_truncation_and_padding = between
    return made


def test_what_another_thread_has_a_tokenizer_cut_or_pad_is_read_again(tokenizer):
    whole = encode(Prompt(BERLIN), tokenizer).tokens.ids
    assert encode(Prompt(BERLIN), switching(tokenizer, 4)).tokens.ids == whole
    with pytest.raises(TokenError, match="another thread uses it with truncation or padding"):
        encode(Prompt(BERLIN), switching(tokenizer, 1000))
