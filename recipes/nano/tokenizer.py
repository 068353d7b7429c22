"""Trains nano's tokenizer: byte-level BPE, cut like GPT-2's, with digits in groups of two.

A word keeps the space before it (" Sam"), no token is put in front of a text, and any text at all
can be encoded. "1732" is "17" + "32", so that a year within a known century is one token.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from recipes.nano import words
from recipes.nano.facts import COUNTRIES

END_OF_TEXT: Final = "<|endoftext|>"
VOCAB_SIZE: Final = 2800
MAX_LENGTH: Final = 128

# GPT-2's own cut, except that a run of digits is cut into pairs.
_CUT: Final = (
    r"'s|'t|'re|'ve|'m|'ll|'d"
    r"| ?\p{L}+| ?\p{N}{1,2}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
)


def single_token_words() -> list[str]:
    """The words that must be one token after a space: every slot filler and every answer."""
    listed = [word for kind in words.CLASSES.values() for phrase in kind for word in phrase.split()]
    places = [word for c in COUNTRIES for word in (c.name, c.capital, c.language, c.continent)]
    others = ["curious", "peanut", "butter", "pineapple", "great", "best", *words.NUMBERS]
    pairs = [word for two in (*words.OPPOSITES, *words.PLURALS) for word in two]
    return sorted({*words.NAMES, *listed, *places, *others, *pairs})


def _texts(corpus: Iterable[str]) -> Iterator[str]:
    yield from corpus
    # Rare words and pairs of digits must not lose their merges to frequent scraps.
    every_word = "".join(f" {word}" for word in single_token_words())
    every_pair = " ".join(f"{n:02d}{n:02d}" for n in range(100))
    starts = "\n".join(
        (*words.NAMES, *(c.name for c in COUNTRIES), *(c.capital for c in COUNTRIES))
    )
    for _ in range(50):
        yield every_word
        yield every_pair
        yield starts


def train_tokenizer(corpus: Iterable[str], vocab_size: int = VOCAB_SIZE) -> PreTrainedTokenizerFast:
    """The tokenizer of this corpus.

    Raises `ValueError` naming the words that ought to be one token and are not: the vocabulary is
    too small for them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_CUT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.ByteLevel(trim_offsets=False)
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(corpus), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=END_OF_TEXT,
        eos_token=END_OF_TEXT,
        unk_token=END_OF_TEXT,
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_LENGTH,
    )
    if split := [word for word in single_token_words() if len(fast.encode(f" {word}")) != 1]:
        raise ValueError(
            f"{len(split)} words are not single tokens in a vocabulary of {len(fast)}: "
            f"{', '.join(split[:10])}. Try a larger vocab_size."
        )
    return fast
