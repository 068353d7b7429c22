"""Greater-than: what has begun in a year ends in a later one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from random import Random
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.errors import TaskError
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.tasks.making import Filled, at_hand, check_n, first_fitting, inside, words

NOUNS: Final = words("""
    war siege reign strike voyage expedition campaign conflict battle famine drought plague
    journey project trial marriage friendship partnership rebellion revolution crisis dynasty
    construction festival occupation truce debate search dispute exhibition
    """)
CENTURIES: Final = range(11, 18)
"""The first two digits of the years, as in the paper."""

FIRST, LAST = 3, 98
"""The least and greatest last two digits: 01 is the donor's, and both sides need a neighbour."""

TEMPLATE: Final = "The {noun} lasted from the year {year} to the year {century}"


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

    After Hanna, Liu & Variengien, "How does GPT-2 compute greater-than?: Interpreting
    mathematical abilities in a pre-trained language model" (2023).

    Args:
        n: how many prompts; each is another noun or another year.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: which has to read a year as two tokens of two digits: ``model.tokenizer``, or
            by default that of the embedded model. Years that it cuts otherwise are left out.

    Returns:
        Prompts with the roles ``noun``, ``YY`` (the last two digits of the first year) and
        ``end`` (the last token: the century of the second), at the same positions in donor and
        recipient, which are equally long.

    Raises:
        TaskError: the tokenizer cuts too few years into two and two digits, or n is no number.

    >>> [prompt] = greater_than(1, seed=2)
    >>> prompt.text, prompt.target, prompt.contrast
    ('The battle lasted from the year 1352 to the year 13', '69', '35')
    >>> prompt.donor
    'The battle lasted from the year 1301 to the year 13'
    """
    check_n(n)
    tokenizer = at_hand(tokenizer)
    years = _years_in_pairs(tokenizer)
    drawn = _candidates(Random(f"greater than {seed}"), years)
    found = first_fitting(drawn, n, tokenizer, _digits_in_pairs)
    if len(found) < n:
        every = len(CENTURIES) * (LAST - FIRST + 1)
        raise TaskError(
            f"Of {every} years this tokenizer reads {len(years)} as two tokens of two digits "
            f"each, which is enough for {len(found)} prompts of this task; n is {n}. Ask for "
            "fewer, or use the tokenizer of another model (GPT-2's is one that does)."
        )
    return Prompts(found)


def _years_in_pairs(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """The years of which both this and the donor's are cut after the century."""

    def cut(years: Sequence[int]) -> list[bool]:
        """Whether each is the century's tokens, and one more."""
        coded = inside([f" {year}" for year in years], tokenizer)
        centuries = inside([f" {year // 100}" for year in years], tokenizer)
        return [
            ids[:-1] == century and bool(century)
            for ids, century in zip(coded, centuries, strict=True)
        ]

    years = [100 * century + yy for century in CENTURIES for yy in range(FIRST, LAST + 1)]
    firsts = cut([100 * (year // 100) + 1 for year in years])
    return [
        year for year, own, first in zip(years, cut(years), firsts, strict=True) if own and first
    ]


def _candidates(rng: Random, years: Sequence[int]) -> Iterator[Prompt]:
    wars = [(year, noun) for year in years for noun in NOUNS]
    rng.shuffle(wars)
    for year, noun in wars:
        century, yy = divmod(year, 100)
        away = rng.randint(1, min(99 - yy, yy - 2))
        text = _filled(noun, year)
        yield Prompt(
            text.text,
            donor=_filled(noun, 100 * century + 1).text,
            target=f"{yy + away:02d}",
            contrast=f"{yy - away:02d}",
            roles={"noun": text.place("noun"), "YY": text.place("year"), "end": -1},
        )


def _filled(noun: str, year: int) -> Filled:
    return Filled.of(TEMPLATE, {"noun": noun, "year": str(year), "century": str(year // 100)})


def _digits_in_pairs(encoded: Encoded) -> bool:
    """Whether the year's last token is its last two digits, in the text and in the donor."""
    yy = encoded.tokens.role("YY")
    both = [tokens.pieces[yy] for tokens in (encoded.tokens, encoded.donor) if tokens is not None]
    return all(digits.isdigit() and len(digits) == 2 for digits in both)
