"""Greater-than: what has begun in a year ends in a later one.

Tokenizers cut a year in two ways that can be asked about: GPT-2's most years into two and two
digits, 17·32, and many newer ones every number into its digits, 1·7·3·2. There the next token is
the digit of the decade.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from random import Random
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.errors import TaskError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.spoken import spoken
from microtome.tasks.making import Filled, at_hand, first_fitting, inside, numbers_of, words

NOUNS: Final = words("""
    war siege reign strike voyage expedition campaign conflict battle famine drought plague
    journey project trial marriage friendship partnership rebellion revolution crisis dynasty
    construction festival occupation truce debate search dispute exhibition
    """)
CENTURIES: Final = range(11, 18)
"""The first two digits of the years, as in the paper."""

FIRST, LAST = 3, 98
"""The least and greatest last two digits: 01 is the donor's, and both sides need a neighbour."""

DECADES = range(2, 9)
"""Digits of a decade that have a neighbour on both sides, the lower of them above the donor's."""

Endings = Callable[[int, int], tuple[str, str]]
"""Last two digits of a year and a distance → the target and the contrast."""

TEMPLATE: Final = "The {noun} lasted from the year {year} to the year {century}"


@spoken
def greater_than(
    n: int = 64, seed: int = 0, *, tokenizer: PreTrainedTokenizerBase | None = None
) -> Prompts:
    """Comparison of years: "The war lasted from the year 1732 to the year 17".

    Measures whether a model completes the second year with two digits (YY) greater than those of
    the first. The target is a later ending and the contrast the ending as many years too early,
    drawn for each prompt: after 1732 perhaps "41" and "23". In the donor the war begins in 1701,
    so that both are later and nothing speaks for the target; that is the paper's 01-dataset. The
    paper's own measure, the probability of all later endings minus that of all others, needs the
    whole vocabulary: see `Run.logits`.

    Where a tokenizer reads every digit by itself, the next token is the decade's, and target and
    contrast are a later decade and one as many too early: after 1752 perhaps "8" and "2".

    After Hanna, Liu & Variengien, "How does GPT-2 compute greater-than?: Interpreting
    mathematical abilities in a pre-trained language model" (2023).

    Args:
        n: how many prompts; each is another noun or another year.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: which has to read a year as two tokens of two digits, or as four of one:
            ``model.tokenizer``, or by default that of the embedded model. Years that it cuts
            otherwise are left out.

    Returns:
        Prompts with the roles ``noun``, ``YY`` (the last two digits of the first year, or the
        last one where each is a token) and ``end`` (the last token: the century of the second),
        at the same positions in donor and recipient, which are equally long.

    Raises:
        TaskError: the tokenizer cuts too few years in one of these ways, or n is no number.

    >>> [prompt] = greater_than(1, seed=2)
    >>> prompt.text, prompt.target, prompt.contrast
    ('The battle lasted from the year 1352 to the year 13', '69', '35')
    >>> prompt.donor
    'The battle lasted from the year 1301 to the year 13'
    """
    n, seed = numbers_of(n, seed)
    tokenizer = at_hand(tokenizer)
    years, endings, fits = _years(tokenizer, 1), _two_digits, _digits_in_pairs
    if not years:
        years = [year for year in _years(tokenizer, 2) if year % 100 // 10 in DECADES]
        endings, fits = _one_digit, _digits_alone
        few = islice(_candidates(Random(seed), years, endings), 20)
        # Where a digit by itself is another token than in a year, none of thousands would fit.
        years = years if first_fitting(few, 1, tokenizer, fits) else []
    drawn = _candidates(Random(f"greater than {seed}"), years, endings)
    found = first_fitting(drawn, n, tokenizer, fits)
    if len(found) < n:
        every = len(CENTURIES) * (LAST - FIRST + 1)
        raise TaskError(
            f"Of {every} years this tokenizer reads {len(years)} as two tokens of two digits each "
            f"or as four of one, which is enough for {many(len(found), 'prompt')} of this task; n "
            f"is {n}. Ask for fewer, or use the tokenizer of another model (GPT-2's is one that "
            "does)."
        )
    return Prompts(found)


def _years(tokenizer: PreTrainedTokenizerBase, tokens: int) -> list[int]:
    """The years of which both this and the donor's have so many tokens after the century's."""

    def cut(years: Sequence[int]) -> list[bool]:
        """Whether each is the century's tokens, and so many more."""
        coded = inside([f" {year}" for year in years], tokenizer)
        centuries = inside([f" {year // 100}" for year in years], tokenizer)
        return [
            ids[:-tokens] == century and bool(century)
            for ids, century in zip(coded, centuries, strict=True)
        ]

    years = [100 * century + yy for century in CENTURIES for yy in range(FIRST, LAST + 1)]
    firsts = cut([100 * (year // 100) + 1 for year in years])
    return [
        year for year, own, first in zip(years, cut(years), firsts, strict=True) if own and first
    ]


def _two_digits(yy: int, away: int) -> tuple[str, str]:
    """A later ending, and one as many years too early."""
    return f"{yy + away:02d}", f"{yy - away:02d}"


def _one_digit(yy: int, away: int) -> tuple[str, str]:
    """The digit of a later decade, and of one as many too early."""
    return str(yy // 10 + away), str(yy // 10 - away)


def _most(yy: int, endings: Endings) -> int:
    """How far away an ending may be on both sides, the lower of them above the donor's."""
    return min(99 - yy, yy - 2) if endings is _two_digits else min(9 - yy // 10, yy // 10 - 1)


def _candidates(rng: Random, years: Sequence[int], endings: Endings) -> Iterator[Prompt]:
    wars = [(year, noun) for year in years for noun in NOUNS]
    rng.shuffle(wars)
    for year, noun in wars:
        century, yy = divmod(year, 100)
        text, most = _filled(noun, year), _most(yy, endings)
        # Where a tokenizer has one token for all of a year, another is tried, the nearest first.
        for away in (rng.randint(1, most), *range(1, most + 1)):
            target, contrast = endings(yy, away)
            yield Prompt(
                text.text,
                donor=_filled(noun, 100 * century + 1).text,
                target=target,
                contrast=contrast,
                roles={"noun": text.place("noun"), "YY": text.place("year"), "end": -1},
            )


def _filled(noun: str, year: int) -> Filled:
    return Filled.of(TEMPLATE, {"noun": noun, "year": str(year), "century": str(year // 100)})


def _digits_in_pairs(encoded: Encoded) -> bool:
    """Whether the year's last token is its last two digits, in the text and in the donor."""
    return _digits(encoded, 2)


def _digits_alone(encoded: Encoded) -> bool:
    """Whether it is its last digit."""
    return _digits(encoded, 1)


def _digits(encoded: Encoded, several: int) -> bool:
    yy = encoded.tokens.role("YY")
    both = [tokens.pieces[yy] for tokens in (encoded.tokens, encoded.donor) if tokens is not None]
    return all(digits.isdigit() and len(digits) == several for digits in both)
