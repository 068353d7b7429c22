"""Induction: a row of words begins again; which word comes next?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.errors import TaskError
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.spoken import spoken
from microtome.tasks.ioi import NAMES, OBJECTS, PLACES
from microtome.tasks.making import Filled, at_hand, first_fitting, numbers_of, whole_words

WORDS: Final = (*OBJECTS, *PLACES, *NAMES)
"""Words that say nothing about each other's order."""

START: Final = "The"
"""Before the first word, so that it has a space in front of it as it has when it comes again."""

LENGTH: Final = 8
"""Words in a row."""

AGAIN: Final = range(2, 6)
"""How many of them come again."""


@spoken
def induction(
    n: int = 64,
    seed: int = 0,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    words: Sequence[str] = WORDS,
) -> Prompts:
    """Repetition: "The ring hotel Adam key ball zoo Rose ticket ring hotel", then
    " Adam".

    Measures whether a model goes on with a row of words as it went on before. The words are drawn
    at random, so nothing but the row itself tells. The target came after the last word when it
    was there first; the contrast is another word of the row. In the donor these two have changed
    places in the first row, so the donor's answer is the contrast.

    After the repeated random tokens of Olsson et al., "In-context learning and induction heads"
    (2022).

    Args:
        n: how many prompts.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: in which the words have to be one token: ``model.tokenizer``, or by default
            that of the embedded model.
        words: to choose from; those that are one token after a space are used.

    Returns:
        Prompts with the roles ``copied`` (the target in the first row), ``before`` (the word that
        it follows there) and ``end`` (that word again, the last token), at the same positions in
        donor and recipient, which are equally long.

    Raises:
        TaskError: the tokenizer has too few one-token words, or an argument is wrong.

    >>> [prompt] = induction(1, seed=1)
    >>> prompt.text
    'The Hannah ring Richard Patrick William Anna Sarah Christine Hannah ring Richard'
    >>> prompt.donor
    'The Hannah ring Richard Christine William Anna Sarah Patrick Hannah ring Richard'
    >>> prompt.target, prompt.contrast
    (' Patrick', ' Christine')
    """
    n, seed = numbers_of(n, seed)
    if isinstance(words, str):
        raise TaskError("words= is a list of words, not one text.")
    tokenizer = at_hand(tokenizer)
    whole = whole_words(words, tokenizer)
    found = []
    if len(whole) >= LENGTH:
        drawn = _candidates(Random(f"induction {seed}"), whole, 4 * n)
        found = first_fitting(drawn, n, tokenizer)
    if len(found) < n:
        raise TaskError(
            f"{len(whole)} of the {len(set(words))} words are one token in this tokenizer, and "
            f"this task takes {LENGTH} for a prompt, which is enough for {len(found)}; n is {n}. "
            "Ask for fewer, give others with words=, or use the tokenizer of another model."
        )
    return Prompts(found)


def _candidates(rng: Random, words: Sequence[str], most: int) -> Iterator[Prompt]:
    for _ in range(most):
        row = rng.sample(words, LENGTH)
        again = rng.choice(AGAIN)
        other = rng.choice(range(again + 1, LENGTH))
        changed = [*row]
        changed[again], changed[other] = row[other], row[again]
        text = _filled(row, again)
        yield Prompt(
            text.text,
            donor=_filled(changed, again).text,
            target=f" {row[again]}",
            contrast=f" {row[other]}",
            roles={
                "copied": text.place(f"w{again}"),
                "before": text.place(f"w{again - 1}"),
                "end": -1,
            },
        )


def _filled(row: Sequence[str], again: int) -> Filled:
    slots = " ".join(f"{{w{n}}}" for n in range(LENGTH))
    words = {f"w{n}": word for n, word in enumerate(row)}
    return Filled.of(f"{START} {slots} {' '.join(row[:again])}", words)
