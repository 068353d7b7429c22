"""Indirect object identification: two people meet, one gives; who receives?"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from random import Random
from types import MappingProxyType
from typing import Final

from transformers import PreTrainedTokenizerBase

from microtome.amounts import many
from microtome.errors import TaskError, there_are
from microtome.prompts.encoding import Encoded
from microtome.prompts.prompt import Prompt
from microtome.prompts.prompts import Prompts
from microtome.spoken import spoken
from microtome.tasks.making import (
    Filled,
    at_hand,
    check_templates,
    first_fitting,
    numbers_of,
    whole_words,
    words,
)

NAMES: Final = words("""
    Sally Mary Anna Emma Alice Laura Sarah Rachel Lisa Julia Kate Jane Amy Emily Rose Lucy Clara
    Grace Helen Nina Maria Susan Linda Karen Nancy Betty Ruth Sharon Michelle Jessica Jennifer
    Amanda Melissa Rebecca Nicole Elizabeth Katherine Christine Samantha Angela Victoria Hannah
    Diana Sophie Olivia Stephanie Heather Lauren Kimberly Andrea Erin Sara Vanessa Allison

    Sam John Tom Paul Mark James Peter David Daniel Michael Robert William Thomas George Henry
    Jack Adam Simon Kevin Brian Eric Ryan Jason Justin Andrew Joseph Steven Richard Charles
    Anthony Patrick Scott Aaron Nathan Kyle Jacob Matthew Christopher Joshua Alexander Benjamin
    Martin Oliver Frank Max Nicholas Jonathan Timothy Stephen Jeffrey Jeremy Gregory Kenneth
    Samuel Brandon Tyler Sean
    """)
PLACES: Final = words("""
    store garden restaurant school hospital office house station park market library museum beach
    zoo church hotel
    """)
OBJECTS: Final = words("""
    ring kiss bone basketball computer necklace drink snack book letter flower ball key ticket
    gift
    """)

ABBA: Final = (
    "When {IO} and {S1} went to the {place}, {S2} gave a {object} to",
    "After {IO} and {S1} went to the {place}, {S2} gave a {object} to",
    "While {IO} and {S1} were working at the {place}, {S2} gave a {object} to",
    "Then, {IO} and {S1} went to the {place}. {S2} gave a {object} to",
    "Then, {IO} and {S1} had a lot of fun at the {place}. {S2} gave a {object} to",
    "Then, {IO} and {S1} were thinking about going to the {place}. "
    "{S2} wanted to give a {object} to",
    "While {IO} and {S1} were at the {place}, {S2} decided to give a {object} to",
)
"""The indirect object is named first; after the templates of Wang et al."""

BABA: Final = tuple(template.replace("{IO} and {S1}", "{S1} and {IO}", 1) for template in ABBA)
"""The same with the subject named first."""

TEMPLATES: Final = tuple(one for pair in zip(ABBA, BABA, strict=True) for one in pair)

Cast = tuple[str, str, str]
"""Who stands in ``{IO}``, ``{S1}`` and ``{S2}``."""


def _swap(rng: Random, io: str, subject: str, names: Sequence[str]) -> Cast:
    return io, subject, io


def _others(rng: Random, io: str, subject: str, names: Sequence[str]) -> Cast:
    first, second, third = rng.sample([name for name in names if name not in (io, subject)], 3)
    return first, second, third


CORRUPTIONS: Final[Mapping[str, tuple[Callable[[Random, str, str, Sequence[str]], Cast], int]]] = (
    MappingProxyType({"swap": (_swap, 2), "names": (_others, 5)})
)
"""Variant → who stands in the donor, and how many names that takes."""


@spoken
def ioi(
    n: int = 64,
    seed: int = 0,
    *,
    tokenizer: PreTrainedTokenizerBase | None = None,
    corrupt: str = "swap",
    templates: Sequence[str] = TEMPLATES,
    names: Sequence[str] = NAMES,
) -> Prompts:
    """Indirect object identification: "When Mary and John went to the store, John gave a drink to".

    Measures whether a model names the one of two people who has not been named twice: the
    indirect object (IO), not the subject (S). The target is IO and the contrast S, so
    ``logit_diff`` is the paper's logit difference. Order ABBA (IO first) and BABA (S first)
    take turns; each prompt has its own pair of names.

    After Wang, Variengien, Conmy, Shlegeris & Steinhardt, "Interpretability in the wild: a
    circuit for indirect object identification in GPT-2 small" (2022).

    Args:
        n: how many prompts.
        seed: of the draw. The same n, seed and tokenizer give the same prompts, and a smaller n
            gives the first of them.
        tokenizer: whose one-token names, places and objects are used: ``model.tokenizer``, or by
            default that of the embedded model.
        corrupt: the donor. ``"swap"``: the other of the two people gives, so the answer is the
            other name (ABB → ABA). ``"names"``: three other people, so there is no answer
            (ABB → CDE; the paper's p_ABC).
        templates: to choose from, in turn; with the slots ``{IO}``, ``{S1}`` and ``{S2}``, and
            perhaps ``{place}`` and ``{object}``. `ABBA`, `BABA`, or your own; one template alone
            gives prompts of one length.
        names: to choose from; those that are one token after a space are used.

    Returns:
        Prompts with the roles ``IO``, ``S1``, ``S2`` and ``end`` (the last token), at the same
        positions in donor and recipient, which are equally long.

    Raises:
        TaskError: the tokenizer has too few one-token names for n, or an argument is wrong.

    >>> [prompt] = ioi(1, seed=3)
    >>> prompt.text
    'When Laura and Jack went to the hospital, Jack gave a gift to'
    >>> prompt.donor
    'When Laura and Jack went to the hospital, Laura gave a gift to'
    >>> prompt.target, prompt.contrast, dict(prompt.roles)
    (' Laura', ' Jack', {'IO': 'Laura', 'S1': 'and Jack', 'S2': 'hospital, Jack', 'end': -1})
    """
    n, seed = numbers_of(n, seed)
    _check(templates, corrupt)
    tokenizer = at_hand(tokenizer)
    whole = whole_words(names, tokenizer)
    people, minimum = len(whole), CORRUPTIONS[corrupt][1]
    most = people * (people - 1) if people >= minimum else 0
    found = []
    if n <= most:
        drawn = _candidates(seed, whole, templates, corrupt, tokenizer)
        found = first_fitting(drawn, n, tokenizer, _names_are_whole)
        most = len(found)
    if len(found) < n:
        raise TaskError(
            f"{people} of the {len(set(names))} names are one token in this tokenizer, enough for "
            f"{many(most, 'prompt')} of this task (each has its own pair of names, and corrupt="
            f"{corrupt!r} takes at least {minimum} names); n is {n}. Ask for fewer, give others "
            "with names=, or use the tokenizer of another model."
        )
    return Prompts(found)


def _check(templates: Sequence[str], corrupt: str) -> None:
    if corrupt not in CORRUPTIONS:
        known = there_are(corrupt, CORRUPTIONS)
        raise TaskError(f"No corruption is called {corrupt!r}; {known}")
    check_templates(templates, ("IO", "S1", "S2"), ("place", "object"))
    for template in templates:
        if re.search(r"(?<! )\{(IO|S1|S2)\}", template):
            raise TaskError(
                f"In the template {template!r} a name has no space before it: its token would be "
                "another than the one that is measured. Put a word in front of it."
            )


def _candidates(
    seed: int,
    names: Sequence[str],
    templates: Sequence[str],
    corrupt: str,
    tokenizer: PreTrainedTokenizerBase,
) -> Iterator[Prompt]:
    # A word in pieces is no harm here, but a template then has several lengths.
    places = whole_words(PLACES, tokenizer) or PLACES
    objects = whole_words(OBJECTS, tokenizer) or OBJECTS
    donors, _ = CORRUPTIONS[corrupt]
    # Each has its own draw, so that recipients are the same whatever the donors are.
    rng, donor_rng = Random(f"ioi {seed}"), Random(f"ioi donors {seed}")
    pairs = [(io, subject) for io in names for subject in names if io != subject]
    rng.shuffle(pairs)
    for number, (io, subject) in enumerate(pairs):
        scene = {"place": rng.choice(places), "object": rng.choice(objects)}
        template = templates[number % len(templates)]
        text = _filled(template, scene, (io, subject, subject))
        yield Prompt(
            text.text,
            donor=_filled(template, scene, donors(donor_rng, io, subject, names)).text,
            target=f" {io}",
            contrast=f" {subject}",
            roles={**{role: text.place(role) for role in ("IO", "S1", "S2")}, "end": -1},
        )


def _filled(template: str, scene: Mapping[str, str], cast: Cast) -> Filled:
    return Filled.of(template, {**scene, **dict(zip(("IO", "S1", "S2"), cast, strict=True))})


def _names_are_whole(encoded: Encoded) -> bool:
    at = {role: encoded.tokens.ids[encoded.tokens.role(role)] for role in ("IO", "S1", "S2")}
    return at == {"IO": encoded.target, "S1": encoded.contrast, "S2": encoded.contrast}
