"""Words in any script: where they are found, and how texts are cut into them."""

from __future__ import annotations

import unicodedata

import pytest

from microtome.errors import PromptError
from microtome.prompts.alignment import aligned
from microtome.prompts.encoding import encode
from microtome.prompts.prompt import Prompt
from microtome.prompts.tokens import Tokens
from microtome.prompts.words import spans_of, words_of


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("她是医生还是老师", "医生"),
        ("東京は日本の首都です", "日本"),
        ("アイスコーヒーを飲む", "コーヒー"),
        ("กรุงเทพเป็นเมืองหลวง", "เมือง"),
        ("서울은 한국의 수도", "한국"),  # with a particle behind it
        ("서울은 한국의 수도", "서울"),
        ("दिल्ली भारत की राजधानी", "भारत"),
        ("दिल्ली भारत की राजधानी", "दिल्ली"),
        ("Hà Nội là thủ đô", "thủ đô"),
        (unicodedata.normalize("NFD", "Hà Nội là thủ đô"), unicodedata.normalize("NFD", "Nội")),
        ("GPT是模型", "GPT"),
        ("I ❤️ NY", "❤️"),
        ("a_b", "_b"),
        ("don't", "don"),
    ],
)
def test_a_word_is_found_in_its_script(text, word):
    [(start, end)] = spans_of(word, text)
    assert text[start:end] == word


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("Die Hauptstadtregion", "Hauptstadt"),
        ("concatenation", "cat"),
        (unicodedata.normalize("NFD", "con cám và"), unicodedata.normalize("NFD", "cá")),
        ("दिल्ली", "दिल"),  # a vowel's sign goes on
        ("수도권", "도권"),  # the end of a Korean word
        ("می\u200cخواهم", "خواهم"),  # joined without a space
        ("👨\u200d👩", "👩"),  # one face of a family
        ("x2y", "2"),
        ("b_\u0301", "b_"),  # an accent on the sign
    ],
)
def test_a_part_of_a_word_is_not_found(text, word):
    assert list(spans_of(word, text)) == []


def test_a_word_that_overlaps_itself_is_there_twice():
    assert list(spans_of("哈哈", "哈哈哈")) == [(0, 2), (1, 3)]
    with pytest.raises(PromptError, match="is in the prompt 2 times"):
        Tokens.of_texts("哈", "哈", "哈").find("哈哈")


@pytest.mark.parametrize("text", ["\u200bthe cat", "the \u200b cat"])
def test_a_sign_that_the_tokenizer_leaves_out_is_at_no_token(text):
    """BERT's leaves out what has no width, in front of a text and inside."""
    spans = tuple(span for word in ("the", "cat") for span in spans_of(word, text))
    tokens = Tokens(text, (0, 1), ("the", "cat"), spans)
    assert tokens.find("cat") == 1
    with pytest.raises(PromptError, match="makes no token of"):
        tokens.find("\u200b")


def test_texts_are_cut_into_words():
    text = "Zoë's café, 她们 sat; " + unicodedata.normalize("NFD", "cám")
    assert [text[start:end] for start, end in words_of(text)] == [
        *("Zoë", "'", "s", "café", ",", "她", "们", "sat", ";"),
        unicodedata.normalize("NFD", "cám"),
    ]


def test_texts_without_spaces_are_aligned_by_their_words(gpt2_tokenizer):
    one = encode(Prompt("她是医生还是老师", donor="我的姐姐她是医生还是老师"), gpt2_tokenizer)
    there = aligned("words", one.tokens, one.donor).there
    assert there[-1] == len(one.donor) - 1
    assert one.tokens.text[one.tokens.offsets[-1][0] :] == "师"


def test_bytes_of_a_character_and_a_space_in_front_are_not_added(real_models):
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(real_models / "stories260K")
    for text, word in [
        ("🐈 sat", "🐈"),
        ("Zoë said", "Zoë"),
        ("5 cats", "5"),
        ("她们 sat", "她们"),
    ]:
        one = encode(Prompt(text, roles={"w": word}), tokenizer).tokens
        assert one.added == (True, *[False] * (len(one) - 1))
        start, end = one.offsets[one.role("w")]
        assert start < len(word) == end
