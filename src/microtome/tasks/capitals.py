"""Capitals: of which country is this city the capital?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.errors import TaskError
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.prompts.tokenizer import read
from microtome.spoken import spoken
from microtome.tasks.making import (
    Filled,
    at_hand,
    check_templates,
    first_fitting,
    numbers_of,
    whole_words,
)

CAPITALS: Final[Mapping[str, str]] = MappingProxyType(
    dict(
        line.split()
        for line in """
        Germany Berlin
        France Paris
        Italy Rome
        Spain Madrid
        Portugal Lisbon
        England London
        Ireland Dublin
        Scotland Edinburgh
        Belgium Brussels
        Austria Vienna
        Switzerland Bern
        Denmark Copenhagen
        Norway Oslo
        Sweden Stockholm
        Finland Helsinki
        Iceland Reykjavik
        Poland Warsaw
        Hungary Budapest
        Greece Athens
        Romania Bucharest
        Bulgaria Sofia
        Croatia Zagreb
        Serbia Belgrade
        Ukraine Kyiv
        Russia Moscow
        Turkey Ankara
        Egypt Cairo
        Morocco Rabat
        Kenya Nairobi
        Ghana Accra
        Nigeria Abuja
        Iran Tehran
        Iraq Baghdad
        Syria Damascus
        Lebanon Beirut
        India Delhi
        Nepal Kathmandu
        China Beijing
        Japan Tokyo
        Thailand Bangkok
        Vietnam Hanoi
        Indonesia Jakarta
        Canada Ottawa
        Cuba Havana
        Peru Lima
        Chile Santiago
        Colombia Bogota
        Jamaica Kingston
        Australia Canberra
        """.strip().splitlines()
    )
)
"""Country → capital, one word each."""

TEMPLATES: Final = (
    "{capital} is the capital of",
    "{capital} is the capital city of",
    "The city of {capital} is in",
    "If you live in {capital}, you live in",
    "Question: Which country has the capital {capital}? Answer:",
)


@spoken
def capitals(
    n: int = 64,
    seed: int = 0,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    templates: Sequence[str] = TEMPLATES,
) -> Prompts:
    """Recall of a fact: "Berlin is the capital of", after which " Germany" is right.

    Measures whether a model knows a relation between two names. The donor asks the same of
    another capital that is as many tokens long; the contrast is the donor's country. So patching
    the right part turns the answer into the contrast.

    After the causal tracing of Meng, Bau, Andonian & Belinkov, "Locating and editing factual
    associations in GPT" (2022), with another subject in the place of noise, as Zhang & Nanda
    advise, "Towards best practices of activation patching in language models" (2023).

    Args:
        n: how many prompts; each is another country or another phrasing.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: in which the countries have to be one token: ``model.tokenizer``, or by
            default that of the embedded model.
        templates: phrasings with the slot ``{capital}``, taken in turn.

    Returns:
        Prompts with the roles ``subject`` (the last token of the capital) and ``end`` (the last
        token), at the same positions in donor and recipient, which are equally long.

    Raises:
        TaskError: the tokenizer has too few one-token countries for n, or an argument is wrong.

    >>> [prompt] = capitals(1, seed=1)
    >>> prompt.text, prompt.target
    ('Berlin is the capital of', ' Germany')
    >>> prompt.donor, prompt.contrast
    ('Brussels is the capital of', ' Belgium')
    """
    n, seed = numbers_of(n, seed)
    check_templates(templates, ("capital",), ())
    tokenizer = at_hand(tokenizer)
    whole = whole_words(CAPITALS, tokenizer)
    drawn = _candidates(Random(f"capitals {seed}"), whole, templates, tokenizer)
    found = first_fitting(drawn, n, tokenizer)
    if len(found) < n:
        raise TaskError(
            f"{len(whole)} of the {len(CAPITALS)} countries are one token in this tokenizer, "
            f"enough for {many(len(found), 'prompt')} of this task with a donor of the same "
            f"length, in {many(len(templates), 'phrasing')}; n is {n}. Ask for fewer, give more "
            "templates=, or use the tokenizer of another model."
        )
    return Prompts(found)


def _candidates(
    rng: Random,
    countries: Sequence[str],
    templates: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[Prompt]:
    order = rng.sample(countries, len(countries))
    questions = {template: _questions(template, countries) for template in templates}
    lengths = {template: _lengths(questions[template], tokenizer) for template in templates}
    # Every country once, with the templates in turn; then again, each with its next template.
    for turn in range(len(templates)):
        for number, country in enumerate(order):
            template = templates[(number + turn) % len(templates)]
            own, length = questions[template], lengths[template]
            others = [c for c in countries if c != country and length[c] == length[country]]
            if others:
                other = rng.choice(others)
                yield Prompt(
                    own[country].text,
                    donor=own[other].text,
                    target=f" {country}",
                    contrast=f" {other}",
                    roles={"subject": own[country].place("capital"), "end": -1},
                )


def _questions(template: str, countries: Sequence[str]) -> dict[str, Filled]:
    return {c: Filled.of(template, {"capital": CAPITALS[c]}) for c in countries}


def _lengths(questions: Mapping[str, Filled], tokenizer: PreTrainedTokenizerBase) -> dict[str, int]:
    return {c: len(read(tokenizer, filled.text)["input_ids"]) for c, filled in questions.items()}
