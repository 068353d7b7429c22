"""What continues a text: the tokens of a target, in all kinds of tokenizers."""

from __future__ import annotations

import copy
import warnings

import pandas as pd
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import microtome as mt
from conftest import BERLIN
from microtome.errors import PromptError, PromptWarning, TaskError, TokenError
from microtome.prompts import encoding
from microtome.prompts.answers import Behind
from microtome.prompts.encoding import encode, piece
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokens import Tokens
from microtome.prompts.warnings import complaints
from microtome.report import spelling
from microtome.tasks.making import whole_words

WORDS = ("When", "went", "to", "the", "store", ",", "gave", "a", "gift", "and", "Mary", "John")


def metaspaced(kind):
    """A Llama tokenizer as one of the two kinds that there are puts a space before any text."""
    pieces = [("<unk>", 0.0), ("<s>", 0.0)]
    pieces += [("▁" + word, -2.0) for word in WORDS] + [(word, -3.0) for word in WORDS]
    pieces += [("▁", -4.0), ('"', -4.0), ("(", -4.0)]
    known = {name for name, _ in pieces}
    pieces += [(c, -9.0) for c in "abcdefghijklmnopqrstuvwxyzGMJSW." if c not in known]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    if kind == "normalizer":
        steps = [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
        made.normalizer = normalizers.Sequence(steps)
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    steps = [decoders.Replace("▁", " "), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    made.decoder = decoders.Sequence(steps)
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>", bos_token="<s>")


@pytest.fixture(scope="module", params=["normalizer", "Metaspace"])
def llama(request):
    return metaspaced(request.param)


@pytest.fixture(scope="module")
def stories(real_models):
    return AutoTokenizer.from_pretrained(real_models / "stories260K")


def raw(answer, tokenizer):
    return tokenizer.convert_ids_to_tokens([answer] if isinstance(answer, int) else [*answer])


@pytest.mark.parametrize(
    ("text", "target", "wanted"),
    [
        ("John gave a gift to", " Mary", ["▁Mary"]),
        ("John gave a gift to", "Mary", ["Mary"]),
        ('John gave "', "Mary", ["Mary"]),
        ("John gave (", "Mary", ["Mary"]),
        ("John gave a gift to", " Mary and John", ["▁Mary", "▁and", "▁John"]),
    ],
)
def test_a_target_is_what_continues_the_text(llama, text, target, wanted):
    one = encode(Prompt(text, target=target, contrast=target), llama)
    assert raw(one.target, llama) == raw(one.contrast, llama) == wanted
    whole = llama(text + target)["input_ids"]
    assert [*one.tokens.ids, *([one.target] if len(wanted) == 1 else one.target)] == whole
    lacks_space = (text[-1], target[0]) == ("o", "M")
    assert ["goes on the last word" in note for note in one.notes] == [True] * 2 * lacks_space


@pytest.mark.parametrize(
    ("text", "target", "wanted"),
    [
        ('One day, Lily said, "', "I", "I"),
        ("Lily was happy", ".", "."),
        ("He was sad and want", "ed", "ed"),
        ("The end", "\n", "<0x0A>"),
    ],
)
def test_what_stands_inside_of_a_word_or_behind_a_sign_can_be_named(stories, text, target, wanted):
    one = encode(Prompt(text, target=target), stories)
    assert raw(one.target, stories) == [wanted]
    assert one.notes == ()


def test_a_word_that_lacks_its_space_is_the_token_that_it_is_by_itself_and_that_is_said(stories):
    text = "Once upon a time, there was a little girl named"
    one = encode(Prompt(text, target="Lily"), stories)
    assert raw(one.target, stories) == ["▁Lily"]
    [note] = complaints([one], masked=False)
    assert "'L', 'ily'" in note
    assert "say so, ' Lily'" in note
    assert encode(Prompt(text, target=" Lily"), stories).notes == ()
    assert raw(encode(Prompt("One day,", target="Lily"), stories).target, stories) == ["▁Lily"]
    quoted = encode(Prompt('Tim said, "', target="Can"), stories)
    assert raw(quoted.target, stories) == ["C", "an"]


def test_what_stands_before_a_target_is_told_from_the_beginning_of_a_word(llama):
    text = "When Mary and John went to the store, John gave a gift to"
    [note] = encode(Prompt(text, target="Mary"), llama).notes
    assert "'Mary' right behind '… the store, John gave a gift to' goes on" in note
    [note] = encode(Prompt("Sam gave a gift to", target="Mary"), llama).notes
    assert "'Mary' right behind 'Sam gave a gift to' goes on" in note


@pytest.mark.parametrize(
    ("end", "target", "said"),
    [
        ("to", "Mary", "goes on the last word there"),
        ("to", " Mary", ""),
        ("to", ",", ""),
        ("to", "b", ""),
        ("to", " Mary,", ""),
        ("to", "Mary and John", "goes on the last word there"),
        (",", "Mary", "stands there without a space"),
        (",", "Mary and John", "stands there without a space"),
        (",", " Mary and John", ""),
        (",", "b", ""),
    ],
)
def test_a_word_right_behind_another_or_a_pause_is_measured_as_given_and_said(
    llama, end, target, said
):
    one = encode(Prompt(f"John gave a gift {end}", target=target), llama)
    assert [said in note and "If a new word is meant" in note for note in one.notes] == [True] * (
        said != ""
    )
    if said:
        assert raw(one.target, llama) == target.replace(" ", " ▁").split(" "), "as given"
        which = "one token too" if " " not in target else "3 tokens"
        assert f"{' ' + target!r}, which is {which}" in one.notes[0]


def test_where_the_texts_own_tokens_change_both_readings_are_named(gpt2_tokenizer):
    one = encode(Prompt("It is of ", target="Germany"), gpt2_tokenizer)
    assert raw(one.target, gpt2_tokenizer) == ["Germany"]
    assert one.tokens.ids == tuple(gpt2_tokenizer("It is of ")["input_ids"])
    *_, note = complaints([one], masked=False)
    assert "' ' would become ' Germany'" in note
    assert "Measured is 'Germany' by itself, 'Germany'" in note


def test_alone_is_without_the_space_that_is_put_in_front_of_texts(stories):
    one = encode(Prompt("She liked to pl", target="ay"), stories)
    assert one.notes
    assert "".join(raw(one.target, stories)) == "ay"


@pytest.mark.parametrize("kind", ["normalizer", "Metaspace"])
def test_what_an_unknown_word_takes_in_is_no_token_behind_it(kind):
    """A tokenizer makes one token of unknown letters in a row: '(1' and '(19' are the same."""
    llama = metaspaced(kind)
    for target in ("9a", "9"):
        before = llama("a 1")["input_ids"]
        assert llama("a 1" + target)["input_ids"][: len(before)] == before
        with pytest.raises(TokenError, match=f"'{target}' is not in the vocabulary"):
            encode(Prompt("a 1", target=target), llama)
    assert raw(encode(Prompt("a 1", target="a"), llama).target, llama) == ["a"]


def test_a_word_that_makes_the_one_before_it_another_unknown_one_is_told_of(wordpiece):
    one = encode(Prompt("the man sits", target="dog"), wordpiece)
    [note] = one.notes
    assert "'[UNK]' would become '[UNK]'" in note
    assert raw(one.target, wordpiece) == ["dog"]


def test_a_space_too_few_is_told_where_it_makes_several_tokens_of_one(tokenizer):
    with pytest.raises(TokenError, match=r"it would go on the last word there, in \d pieces"):
        encode(Prompt(BERLIN, target="Germany"), tokenizer)
    one = encode(Prompt("Berlin is in:", target="Germany"), tokenizer)
    assert len(one.target) > 1
    [note] = complaints([one], masked=False)
    assert "Did you mean ' Germany' with a leading space, which is one?" in note
    spelled = encode(Prompt(BERLIN, target="ĠGermany"), tokenizer)
    [note] = complaints([spelled], masked=False)
    token = tokenizer.convert_tokens_to_ids("ĠGermany")
    assert "'ĠGermany' is how the vocabulary spells the token ' Germany'" in note
    assert f"give ' Germany', or its id, {token}." in note
    for text in ("Berlin is\n", 'Berlin is "', "Berlin is ("):
        assert encode(Prompt(text, target="Germany"), tokenizer).notes == ()
    several = encode(Prompt(BERLIN, target=" the cat"), tokenizer)
    assert several.target == tuple(tokenizer(" the cat")["input_ids"])
    assert several.notes == ()


def test_ids_and_sets_of_tokens_are_taken(tokenizer):
    [germany] = tokenizer(" Germany")["input_ids"]
    assert encode(Prompt(BERLIN, target=germany), tokenizer).target == germany
    some = encode(Prompt(BERLIN, targets=[" France", germany], contrasts=[5]), tokenizer)
    assert some.target == {germany, *tokenizer(" France")["input_ids"]}
    assert some.contrast == 5
    assert "any of" in some.measured("target")
    assert "' Germany'" in some.measured("target")


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"target": 5000}, "the token's id 5000 does not exist: the model has 400 tokens"),
        ({"targets": [" the cat"]}, "several tokens here (' the', ' cat'), and of a set each is"),
        ({"targets": [" the", " the"]}, "' the' and ' the' are the same token here"),
        ({"ids": [4, 5000], "text": ""}, "The prompt's token 5000 does not exist"),
    ],
)
def test_what_cannot_be_measured_says_why(tokenizer, fields, says):
    with pytest.raises(TokenError) as error:
        encode(Prompt(**{"text": BERLIN, **fields}), tokenizer, n_vocab=400)
    assert says in str(error.value)


def test_behind_a_quote_no_space_is_taken_to_be_missing(stories):
    """By itself ``Lily`` is one token with a space in front, and behind a quote none is missing."""
    one = encode(Prompt('Tim said, "', target="Lily"), stories)
    assert [*one.tokens.ids, *one.target] == stories('Tim said, "Lily')["input_ids"]
    assert one.notes == ()


@pytest.mark.parametrize("text", ["她是", "她是。", "Anna 是"])
def test_where_no_spaces_are_written_none_is_taken_to_be_missing(text):
    """By itself 老师 is one token with a space in front, which nobody writes behind 是."""
    pieces = [("<unk>", 0.0), ("▁老师", -1.0), *((one, -3.0) for one in "▁她是老师。Ana")]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    made.decoder = decoders.Metaspace(prepend_scheme="first")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    one = encode(Prompt(text, target="老师"), tokenizer)
    assert raw(one.target, tokenizer) == ["老", "师"]
    assert one.notes == ()


def test_of_a_set_what_is_to_be_said_of_any_token_is_said(stories):
    text = "Once upon a time, there was a little girl named"
    for targets in (["Lily", " Tim"], [" Tim", "Lily"]):
        one = encode(Prompt(text, targets=targets), stories)
        assert ["say so, ' Lily'" in note for note in one.notes] == [True]


def test_behind_ids_that_no_text_has_a_target_is_what_it_is_by_itself(gpt2_tokenizer):
    """Written as a text the ids would be others: nothing continues those."""
    ids = gpt2_tokenizer.convert_tokens_to_ids(["B", "er", "lin"])
    assert gpt2_tokenizer("Berlin")["input_ids"] != ids
    one = encode(Prompt(ids=ids, target=" Germany and France"), gpt2_tokenizer)
    assert list(one.target) == gpt2_tokenizer(" Germany and France")["input_ids"]
    assert one.notes == ()


def test_a_piece_is_read_behind_a_sign_that_it_does_not_melt_into():
    pieces = [
        ("<unk>", 0.0),
        ("▁", -4.0),
        ("\n", -4.0),
        ("\nMa", -1.0),
        ('"', -4.0),
        ("Mary", -3.0),
    ]
    pieces += [("M", -9.0), ("a", -9.0), ("r", -1.0), ("y", -1.0)]
    made = Tokenizer(models.Unigram(pieces, unk_id=0))
    made.normalizer = normalizers.Prepend("▁")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")
    assert raw(tokenizer("\nMary")["input_ids"], tokenizer) == ["▁", "\nMa", "r", "y"]
    one = encode(Prompt(ids=[3, 3], target="Mary"), tokenizer)
    assert raw(one.target, tokenizer) == ["Mary"]


def words_alone():
    """A tokenizer of whole words, which keeps no space and has no decoder."""
    known = {"<unk>": 0, "a": 1, "b": 2, "▁c": 3}
    made = Tokenizer(models.WordLevel(known, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made, unk_token="<unk>")


def test_what_adds_no_token_is_refused():
    with pytest.raises(TokenError, match="' ' adds no token to 'a b'"):
        encode(Prompt("a b", target=" "), words_alone())


def test_a_space_is_read_once_where_the_decoder_leaves_its_sign():
    assert piece(3, words_alone()) == "▁c"


def test_the_unknown_token_can_be_asked_for_by_its_name(llama):
    text = "John gave a gift to"
    assert encode(Prompt(text, target="<unk>"), llama).target == llama.unk_token_id
    with pytest.raises(TokenError, match="'Q' is not in the vocabulary"):
        encode(Prompt(text, target="Q"), llama)


@pytest.mark.parametrize(
    "fields",
    [
        {"target": " a", "targets": [" b"]},
        {"targets": []},
        {"targets": " a"},
        {"target": -1},
        {"target": True},
        {"targets": [None]},
        {"ids": [1]},
        {"text": "", "ids": []},
        {"text": "", "ids": [1, -2]},
        {"text": "", "ids": ["a"]},
        {"text": "", "ids": [1], "donor": "a", "donor_ids": [2]},
        {"text": "", "messages": [{"content": "no role"}]},
        {"text": "", "messages": "Hi"},
    ],
)
def test_fields_that_do_not_go_are_refused(fields):
    with pytest.raises(PromptError):
        Prompt(**{"text": "a", **fields})


def test_a_prompt_of_ids_is_its_tokens_and_nothing_else(tiny, stories):
    ids, other = [5, 7, 300, 7], [5, 9, 300, 9]
    prompt = Prompt(ids=ids, donor_ids=other, target=7, roles={"second": 1})
    [one] = tiny.encode(prompt)
    assert (one.tokens.ids, one.donor.ids) == (tuple(ids), tuple(other))
    assert encode(Prompt(ids=ids), stories).tokens.ids == tuple(ids)  # no <s> in front
    assert one.tokens.text == "".join(one.tokens.pieces)
    found = mt.sweep(tiny, prompt, "patch L*.resid_post@second", metrics="prob", progress=False)
    assert found.data["text"].item() == one.tokens.text
    with torch.no_grad():
        direct = tiny.hf(torch.tensor([ids])).logits[0, -1]
    assert float(found.data["clean_prob"][0]) == pytest.approx(float(direct.softmax(-1)[7]))
    assert eval(repr(prompt)) == prompt
    for given in (ids, [ids], [Prompt(ids=ids)], torch.tensor(ids), torch.tensor([ids])):
        assert tiny.encode(given)[0].tokens.ids == tuple(ids)


def test_a_number_as_the_target_of_a_text_in_a_table_is_an_id_and_that_is_said(tmp_path):
    (tmp_path / "sums.jsonl").write_text('{"text": "5 + 7 =", "target": 12}\n')
    frame = pd.DataFrame({"text": ["5 + 7 ="], "target": [12]})
    for given in (tmp_path / "sums.jsonl", frame, [{"text": "5 + 7 =", "target": 12}]):
        with pytest.warns(PromptWarning, match=r"a token's id, .*make it one \(\"12\""):
            assert list(mt.Stream(given)) == [Prompt("5 + 7 =", target=12)]
    for target, wanted in (({"id": 12}, 12), ("12", "12")):
        assert next(iter(mt.Stream([{"text": "a", "target": target}]))).target == wanted


def test_files_hold_ids_sets_and_chats(tmp_path):
    wanted = [
        Prompt(ids=[1, 2], donor_ids=[1, 3], target=7),
        Prompt("a", targets=[" b", 5]),
        Prompt.chat([{"role": "user", "content": "Hi"}], target="a"),
    ]
    (tmp_path / "p.jsonl").write_text(
        '{"ids": [1, 2], "donor_ids": [1, 3], "target": 7}\n'
        '{"text": "a", "targets": [" b", {"id": 5}]}\n'
        '{"messages": [{"role": "user", "content": "Hi"}], "target": "a"}\n'
    )
    (tmp_path / "p.csv").write_text(
        "text,ids,donor_ids,targets,messages,target\n"
        ',"[1, 2]","[1, 3]",[7],,\n'
        'a,,,"["" b"", 5]",,\n'
        ',,,,"[{""role"": ""user"", ""content"": ""Hi""}]",a\n'
    )
    assert list(mt.Prompts.read(tmp_path / "p.jsonl")) == wanted
    from_csv = list(mt.Prompts.read(tmp_path / "p.csv"))
    assert from_csv[1:] == wanted[1:]
    assert (from_csv[0].ids, from_csv[0].targets) == ((1, 2), (7,))
    (tmp_path / "bad.csv").write_text('ids\n"{}"\n')
    with pytest.raises(PromptError, match="line 2: ids: expected a list in JSON"):
        mt.Prompts.read(tmp_path / "bad.csv")


def test_tokens_that_differ_by_their_space_read_differently(stories):
    for word in ("I", "a", "he"):
        ids = stories.convert_tokens_to_ids([word, "▁" + word])
        assert [piece(one, stories) for one in ids] == [word, " " + word]


def test_names_are_found_in_tokenizers_that_put_a_space_in_front(llama):
    assert whole_words(["Mary", "John", "Sam"], llama) == ("Mary", "John")


CHAT = (
    "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }}{% endfor %}"
    "{% if add_generation_prompt %} [a]{% endif %}"
)
TALK = [{"role": "user", "content": "Once upon a time"}]


def test_a_chat_is_tokenised_as_the_template_does_it(real_models):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=CHAT)
    other = [{"role": "user", "content": "Once upon a day"}]
    prompt = Prompt.chat(TALK, donor=other, target=" She", roles={"what": "time"})
    one = encode(prompt, tokenizer)
    how = {"tokenize": True, "add_generation_prompt": True, "return_dict": False}
    assert list(one.tokens.ids) == tokenizer.apply_chat_template(TALK, **how)
    assert list(one.donor.ids) == tokenizer.apply_chat_template(other, **how)
    assert one.tokens.ids.count(tokenizer.bos_token_id) == 1
    assert one.tokens.text[one.tokens.offsets[one.tokens.role("what")][0] :].startswith(" time")
    assert list(complaints([one], masked=False)) == []
    assert Prompt(**prompt.as_dict()) == prompt == eval(repr(prompt))
    assert encode(Prompt(one.tokens.text), tokenizer).tokens.ids == one.tokens.ids


THINKING = (
    "{% for t in tools or [] %}<{{ t['name'] }}>{% endfor %}{% for m in messages %}"
    "[{{ m['role'] }}] {{ m['content'] }}{% endfor %}{% if add_generation_prompt %} [a]"
    "{% if enable_thinking is defined and not enable_thinking %} <no>{% endif %}{% endif %}"
)
SAID = [*TALK, {"role": "assistant", "content": "there"}]


@pytest.mark.parametrize(
    ("turns", "options", "text"),
    [
        (TALK, {}, "[user] Once upon a time [a]"),
        (TALK, {"enable_thinking": False}, "[user] Once upon a time [a] <no>"),
        (TALK, {"enable_thinking": True}, "[user] Once upon a time [a]"),
        (TALK, {"add_generation_prompt": False}, "[user] Once upon a time"),
        (SAID, {"continue_final_message": True}, "[user] Once upon a time[assistant] there"),
        (TALK, {"tools": [{"name": "clock"}]}, "<clock>[user] Once upon a time [a]"),
        (TALK, {"chat_template": "{{ messages[0].content }}!"}, "Once upon a time!"),
    ],
)
def test_a_chat_template_is_told_what_it_reads_besides(real_models, turns, options, text):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=THINKING)
    other = [{**turn, "content": "Once"} for turn in turns]
    prompt = Prompt.chat(turns, donor=other, target=" She", chat_options=options)
    one = encode(prompt, tokenizer)
    begun = {} if "continue_final_message" in options else {"add_generation_prompt": True}
    how = {"return_dict": False, **begun, **options}
    assert list(one.tokens.ids) == tokenizer.apply_chat_template(turns, tokenize=True, **how)
    assert list(one.donor.ids) == tokenizer.apply_chat_template(other, tokenize=True, **how)
    assert tokenizer.apply_chat_template(turns, tokenize=False, **how) == text
    assert prompt == eval(repr(prompt)) == Prompt(**prompt.as_dict()) == copy.deepcopy(prompt)
    assert ("chat_options" in prompt.as_dict()) == bool(options)
    assert eval(spelling.prompt(prompt.as_dict())) == prompt  # as the code on a page has it
    asked = mt.Experiment(model="nano", prompts=[prompt], edits="zero L1.z", metrics="kl")
    assert mt.Experiment.from_yaml(asked.to_yaml()).prompts == (prompt,)


def test_a_donor_that_is_the_text_of_the_chat_is_read_as_a_text(real_models):
    """The tokenizer puts its first token in front of it; in front of a chat the template would."""
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=THINKING)
    text = "[user] Once upon a time [a]"
    one = encode(Prompt("", messages=TALK, donor=text), tokenizer)
    assert one.tokens.text == text
    assert one.donor.ids == encode(Prompt(text), tokenizer).tokens.ids
    assert one.donor.ids == (tokenizer.bos_token_id, *one.tokens.ids)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinkng": False}, "reads no 'enable_thinkng'.* Did you mean 'enable_thinking'"),
        ({"documents": []}, "reads no 'documents', so it would change nothing"),
        ({"tokenize": True}, "'tokenize' is no option of a chat"),
        ({"tools": [print]}, "not JSON serializable. .*get_json_schema"),
        ({"tools": ["\ud83d"]}, "has half a character"),
        ({1: 2}, "are names with what the chat template is told"),
        ("enable_thinking", "are names with what the chat template is told"),
    ],
)
def test_what_a_chat_template_cannot_be_told_is_refused(real_models, options, message):
    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=THINKING)
    with pytest.raises(PromptError, match=message):
        encode(Prompt.chat(TALK, chat_options=options), tokenizer)
    with pytest.raises(PromptError, match="this is no chat"):
        Prompt("Once", chat_options={"enable_thinking": False})


def test_a_chat_that_the_model_does_not_take_says_why(tokenizer, real_models):
    with pytest.raises(PromptError, match="has no chat template"):
        encode(Prompt.chat(TALK), tokenizer)
    picky = "{{ raise_exception('System role not supported') }}"
    strict = AutoTokenizer.from_pretrained(real_models / "stories260K", chat_template=picky)
    with pytest.raises(PromptError, match=r"1 turn \(user\): System role not supported"):
        encode(Prompt.chat(TALK), strict)


def test_a_masked_language_model_takes_one_token_and_sets(bert64):
    with pytest.raises(TokenError, match="not one token"):
        bert64.encode(Prompt("pay [MASK] attention", target="no man"))
    [one] = bert64.encode(Prompt("pay [MASK] attention", targets=["no", "man"]))
    assert len(one.target) == 2


def test_encode_warns_with_the_note(tiny):
    with pytest.warns(PromptWarning, match="Did you mean ' Germany'"):
        tiny.encode(Prompt("Berlin is in:", target="Germany"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tiny.encode(Prompt(BERLIN, target=" Germany and France"))


@pytest.fixture(scope="module")
def of_words():
    """A tokenizer that has no token for unknown words, and refuses them."""
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=made)


class TestATokenizerThatRefusesUnknownWords:
    def test_what_continues_the_text_is_measured(self, of_words):
        one = encode(Prompt("John gave Mary", target=" a", contrast=" the gift"), of_words)
        assert raw(one.target, of_words) == ["a"]
        assert raw(one.contrast, of_words) == ["the", "gift"]
        assert not one.notes

    def test_a_target_that_would_make_an_unknown_word_is_measured_by_itself(self, of_words):
        one = encode(Prompt("John gave Mary", target="a"), of_words)
        assert raw(one.target, of_words) == ["a"]
        assert "is nothing that the tokenizer can read" in one.notes[0]
        assert "Is a space missing" in one.notes[0]

    @pytest.mark.parametrize(
        "prompt",
        [
            Prompt("John gave Peter"),
            Prompt("John gave", donor="John gives"),
            Prompt("John gave", target=" Peter"),
            Prompt("John gave", target="Peter"),
            Prompt(ids=[0, 1], target="Peter"),
        ],
    )
    def test_an_unknown_word_is_refused_by_name(self, of_words, prompt):
        with pytest.raises(TokenError, match=r"cannot read '.*(Peter|gives)'.*of its vocabulary"):
            encode(prompt, of_words)

    def test_tasks_know_its_words(self, of_words):
        assert whole_words(["Mary", "Peter"], of_words) == ("Mary",)
        with pytest.raises(TaskError):
            mt.tasks.induction(1, tokenizer=of_words)


def test_a_word_beside_itself_with_its_space_is_asked_for_on_purpose(nano):
    text = "Berlin is the capital of"
    with pytest.warns(PromptWarning, match="begin it with its space"):
        nano.encode(mt.Prompt(text, target="Germany"))
    [one] = nano.encode(mt.Prompt(text, target=" Germany", contrast="Germany"))
    assert one.target != one.contrast


def test_a_target_of_which_the_tokenizer_leaves_all_out_is_refused():
    """Behind tokens that are given as ids, too, where no text shows what is missing."""
    words = Tokenizer(models.BPE({"a": 0, "b": 1}, []))  # leaves out what it does not know
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    own = PreTrainedTokenizerFast(tokenizer_object=words)
    tokens = Tokens("a b", (0, 1), ("a", " b"), ((0, 1), (1, 3)))
    behind = Behind(tokens, own, lambda text: ((), ()))
    assert behind.answer("b")[0] == 1
    with pytest.raises(TokenError, match="'c' is no token here: the tokenizer leaves all of it"):
        behind.answer("c")


def test_a_text_is_read_once_for_all_that_is_measured_behind_it(nano, monkeypatch):
    """To read one takes as long as all else that is asked of a prompt."""
    asked, own = [], encoding.read

    def reading(tokenizer, text, **how):
        asked.append(text)
        return own(tokenizer, text, **how)

    monkeypatch.setattr(encoding, "read", reading)
    prompt = Prompt(BERLIN, target=" Germany", contrast=" France")
    encode(prompt, nano.tokenizer)
    assert asked == [BERLIN, f"{BERLIN} Germany", f"{BERLIN} France"]
    encode(prompt, nano.tokenizer)  # by a tokenizer that may be another by now
    assert len(asked) == 6
