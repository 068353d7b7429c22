"""Quotes: the last word of a famous line."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.errors import TaskError
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.prompts.tokenizer import read
from microtome.spoken import spoken
from microtome.tasks.making import at_hand, first_fitting, numbers_of, whole_words

QUOTATIONS: Final = (
    "I have no special talents. I am only passionately curious",
    "I think, therefore I am",
    "To be, or not to be, that is the question",
    "All the world's a stage",
    "Brevity is the soul of wit",
    "I came, I saw, I conquered",
    "The unexamined life is not worth living",
    "No man ever steps in the same river twice",
    "A journey of a thousand miles begins with a single step",
    "Man is born free, and everywhere he is in chains",
    "An investment in knowledge pays the best interest",
    "A house divided against itself cannot stand",
    "What does not kill me makes me stronger",
    "I can resist everything except temptation",
    "Hope is the thing with feathers",
    "A thing of beauty is a joy for ever",
    "It was the best of times, it was the worst of times",
    "The only thing we have to fear is fear itself",
    "Fortune favours the prepared mind",
    "Give me a place to stand, and I will move the earth",
    "The child is father of the man",
)
"""Lines of Einstein, Descartes, Shakespeare (three), Caesar, Socrates, Heraclitus, Laozi, Rousseau,
Franklin, Lincoln, Nietzsche, Wilde, Dickinson, Keats, Dickens, Roosevelt, Pasteur, Archimedes and
Wordsworth, as they are commonly given; the embedded model has read them all."""


@spoken
def quotes(
    n: int = 16,
    seed: int = 0,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    quotations: Sequence[str] = QUOTATIONS,
) -> Prompts:
    """Memory of a text: "I have no special talents. I am only passionately", then " curious".

    Measures whether a model knows a line by heart: the target is its last word. The donor is
    another quotation that is as many tokens long up to its last word, which is the contrast;
    they share no more than their length, so a position means other words in each.

    Memorised lines as a probe of recall: Haviv, Cohen, Gidron, Schuster, Goldberg & Geva,
    "Understanding transformer memorization recall through idioms" (2023).

    Args:
        n: how many prompts, each another quotation.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: in which the last word has to be one token: ``model.tokenizer``, or by default
            that of the embedded model.
        quotations: to choose from, without their full stop.

    Returns:
        Prompts with the role ``end`` (the last token). Donor and recipient are equally long.

    Raises:
        TaskError: too few quotations end in one token and have another of their length, or an
            argument is wrong.

    >>> [prompt] = quotes(1, seed=0)
    >>> prompt.text, prompt.target
    ('I have no special talents. I am only passionately', ' curious')
    >>> prompt.donor, prompt.contrast
    ('A journey of a thousand miles begins with a single', ' step')
    """
    n, seed = numbers_of(n, seed)
    _check(quotations)
    tokenizer = at_hand(tokenizer)
    whole = _whole(quotations, tokenizer)
    found = first_fitting(_candidates(Random(f"quotes {seed}"), whole, tokenizer), n, tokenizer)
    if len(found) < n:
        raise TaskError(
            f"{len(whole)} of the {many(len(quotations), 'quotation')} end in a word of one token "
            f"in this tokenizer, and {len(found)} of them have another of the same length for a "
            f"donor; n is {n}. Ask for fewer, or give more with quotations=."
        )
    return Prompts(found)


def _check(quotations: Sequence[str]) -> None:
    if isinstance(quotations, str):
        raise TaskError("quotations= is a list of texts, not one text.")
    for text in quotations:
        if len(text.split()) < 2 or not text[-1:].isalnum():
            raise TaskError(
                f"{text!r} cannot be asked for its last word: give at least two words, and no "
                "sign or space after the last."
            )


def _split(quotation: str) -> tuple[str, str]:
    stem, last = quotation.rsplit(maxsplit=1)
    return stem, last


def _whole(quotations: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    lasts = set(whole_words((_split(text)[1] for text in quotations), tokenizer))
    return [text for text in quotations if _split(text)[1] in lasts]


def _candidates(
    rng: Random, quotations: Sequence[str], tokenizer: PreTrainedTokenizerBase
) -> Iterator[Prompt]:
    lengths = {text: len(read(tokenizer, _split(text)[0])["input_ids"]) for text in quotations}
    for text in rng.sample(quotations, len(quotations)):
        stem, last = _split(text)
        others = [
            other
            for other in quotations
            if lengths[other] == lengths[text] and _split(other)[1] != last
        ]
        if others:
            donor, contrast = _split(rng.choice(others))
            yield Prompt(
                stem, donor=donor, target=f" {last}", contrast=f" {contrast}", roles={"end": -1}
            )
