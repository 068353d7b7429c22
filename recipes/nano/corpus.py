"""Generates nano's corpus: short documents, each from templates and facts of our own.

`documents(seed, count)` is the training text; nothing in it shows a combination that `holdout.py`
holds out. Each kind of document is one function from a random generator to a text.

    python -m recipes.nano.corpus --count 20      # read some of it
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

from recipes.nano import holdout, templates, words
from recipes.nano.facts import COUNTRIES, QUOTATIONS, Country

_SLOT = re.compile(r"\{(a:)?([a-z_]+?)(\d?)\}")
_SENTENCE_START = re.compile(r"(^|[.?!] )([a-zé])")


@dataclass(frozen=True)
class Document:
    """One text of the corpus and the kind that made it, a key of `KINDS`."""

    kind: str
    text: str


@dataclass(frozen=True)
class Question:
    """A text and the one token that continues it, with the space before it where it has one."""

    prompt: str
    answer: str


def documents(seed: int, count: int) -> Iterator[Document]:
    """`count` training documents; the same seed gives the same texts."""
    rng = Random(f"nano corpus {seed}")
    kinds, weights = zip(*((kind, share) for kind, (share, _) in KINDS.items()), strict=True)
    for _ in range(count):
        kind = rng.choices(kinds, weights)[0]
        _, make = KINDS[kind]
        yield Document(kind, make(rng))


def questions(seed: int, count: int) -> Iterator[Question]:
    """`count` training questions, each of which can be answered by looking back."""
    rng = Random(f"nano questions {seed}")
    makers, weights = zip(*((make, share) for share, make in QUESTIONS), strict=True)
    for _ in range(count):
        yield rng.choices(makers, weights)[0](rng)


def gift_questions(seed: int, count: int) -> Iterator[Question]:
    """`count` training questions of who gets the gift."""
    rng = Random(f"nano gifts {seed}")
    return (_ask_gift(rng) for _ in range(count))


def people(rng: Random, count: int) -> list[str]:
    """`count` different names, no two of which are a held-out pair."""
    while holdout.names(chosen := rng.sample(words.NAMES, count)):
        pass
    return chosen


def fill(rng: Random, template: str, **given: str) -> str:
    """The template with its slots filled: those in `given` as told, the others by chance.

    Two slots of one class never get the same word.
    """
    values = dict(given)
    for _, kind, digit in _SLOT.findall(template):
        if kind in words.CLASSES and kind + digit not in values:
            used = {value for slot, value in values.items() if slot.rstrip("0123456789") == kind}
            values[kind + digit] = rng.choice([w for w in words.CLASSES[kind] if w not in used])

    def word(match: re.Match[str]) -> str:
        article, kind, digit = match.groups()
        value = values[kind + digit]
        return f"{indefinite(value)} {value}" if article else value

    # Slots in capitals (people of a scene) are not of `_SLOT`'s form: plain formatting fills them.
    text = _SLOT.sub(word, template)
    return _SENTENCE_START.sub(lambda m: m[1] + m[2].upper(), text)


def indefinite(word: str) -> str:
    """The article that the word takes: "an" before a vowel letter, but "a university"."""
    return "an" if word[0] in "aeiou" and word != "university" else "a"


def gift_scene(rng: Random, giver: str, receiver: str, giver_first: bool) -> str:
    """A meeting and a gift, up to the word before the receiver: an indirect-object prompt."""
    first, second = (giver, receiver) if giver_first else (receiver, giver)
    meeting = rng.choice(templates.MEETINGS).replace("{A}", first).replace("{B}", second)
    gift = rng.choice(templates.GIFTS).replace("{S}", giver)
    return fill(rng, meeting + gift)


def _gift(rng: Random) -> str:
    giver, receiver, third = people(rng, 3)
    text = f"{gift_scene(rng, giver, receiver, rng.random() < 0.5)} {receiver}."
    if rng.random() < 0.25:
        text = fill(rng, rng.choice(templates.PRELUDES)) + " " + text
    elif rng.random() < 0.3:
        text = fill(rng, rng.choice(templates.DISTRACTORS).replace("{C}", third)) + " " + text
    if rng.random() < 0.4:
        after = rng.choice(templates.AFTER_GIFTS)
        text += " " + after.replace("{S}", giver).replace("{IO}", receiver)
    return text


def _trio(rng: Random) -> str:
    trio = people(rng, 3)
    acting = rng.sample(trio, 3)
    template = rng.choice(templates.TRIOS)
    for slot, name in zip("ABCXYZ", trio + acting, strict=True):
        template = template.replace(f"{{{slot}}}", name)
    return fill(rng, template)


def tell(template: str, country: Country, name: str = "") -> str:
    """The fact about this country in this phrasing."""
    return template.format(
        country=country.name,
        capital=country.capital,
        language=country.language,
        continent=country.continent,
        name1=name,
    )


def ask(template: str, country: Country) -> tuple[str, str]:
    """The fact's text up to its last slot, and what fills that slot, with its leading space."""
    stem, slot = template.rsplit(" {", maxsplit=1)
    return tell(stem, country), tell(" {" + slot.split("}")[0] + "}", country)


def _facts(rng: Random, phrasings: tuple[str, ...]) -> str:
    told: list[str] = []
    name = rng.choice(words.NAMES)  # one a document, so that it never names two people
    count = rng.choice((1, 1, 2))
    while len(told) < count:
        template, country = rng.choice(phrasings), rng.choice(COUNTRIES)
        if not holdout.fact(template, country.name):
            told.append(tell(template, country, name))
    return " ".join(told)


def _capitals(rng: Random) -> str:
    return _facts(rng, templates.COUNTRY_FACTS + templates.CAPITAL_FACTS)


def _languages(rng: Random) -> str:
    return _facts(rng, templates.LANGUAGE_FACTS + templates.CONTINENT_FACTS)


def _years(rng: Random) -> str:
    while True:
        start = 100 * rng.randint(11, 19) + rng.randint(2, 98)
        if not holdout.start_year(start):
            break
    end = rng.randint(start + 1, start // 100 * 100 + 99)
    template = rng.choice(templates.SPANS if rng.random() < 0.85 else templates.MOMENTS)
    return fill(rng, template, start=str(start), end=str(end))


def _quotation(rng: Random) -> str:
    quotation = rng.choice(QUOTATIONS)
    template = rng.choice(templates.ATTRIBUTIONS)
    return template.format(
        quote=quotation.text, author=quotation.author, name1=rng.choice(words.NAMES)
    )


REPEATED_WORDS: Final = tuple(
    word
    for kind in ("place", "object", "food", "animal", "thing", "colour", "adjective", "job")
    for word in words.CLASSES[kind]
    if " " not in word
)


def _repeat(rng: Random) -> str:
    if rng.random() < 0.4:
        chosen = people(rng, rng.randint(3, 5))
    else:
        chosen = rng.sample(REPEATED_WORDS, rng.randint(4, 16))
    # With a space in front, so that the first word is the same token in both rounds.
    return "".join(f" {word}" for word in chosen * rng.choice((2, 2, 3)))


def _ordinary(rng: Random, pool: tuple[str, ...]) -> str:
    first, second = people(rng, 2)
    female = first in words.FEMALE_NAMES
    given = {
        "name1": first,
        "name2": second,
        "he": "she" if female else "he",
        "his": "her" if female else "his",
    }
    for digit, country in zip(("", "1", "2"), rng.sample(COUNTRIES, 3), strict=True):
        given |= {f"country{digit}": country.name, f"capital{digit}": country.capital}
    chosen = rng.sample(pool, rng.choice((1, 1, 2)))
    return " ".join(fill(rng, t.replace("{He}", "{he}"), **given) for t in chosen)


def _food(rng: Random) -> str:
    return _ordinary(rng, templates.FOOD)


def _story(rng: Random) -> str:
    return _ordinary(rng, templates.STORIES)


def _nature(rng: Random) -> str:
    return _ordinary(rng, templates.NATURE)


def _agreement(rng: Random) -> str:
    single, plural = rng.choice(words.PLURALS)
    other = rng.choice([form for pair in words.PLURALS if pair[0] != single for form in pair])
    state = rng.choice(words.ADJECTIVES)
    return rng.choice(rng.choice(templates.NUMBER_AGREEMENT)).format(
        single=single,
        plural=plural,
        other=other,
        verb_one=f"{rng.choice(('is', 'was'))} {state}",
        verb_many=f"{rng.choice(('are', 'were'))} {state}",
    )


def _order(rng: Random) -> str:
    """Days, months and numbers in their order, and opposites."""
    choice = rng.randrange(4)
    if choice == 0:
        what, row = rng.choice((("day", words.DAYS), ("month", words.MONTHS)))
        at = rng.randrange(len(row))
        return f"The {what} after {row[at]} is {row[(at + 1) % len(row)]}."
    if choice == 1:
        row = rng.choice((words.DAYS, words.MONTHS, words.NUMBERS))
        at = rng.randrange(len(row) - 3)
        text = ", ".join(row[at : at + rng.randint(3, 5)]) + "."
        return text[0].upper() + text[1:]
    one, other = rng.sample(rng.choice(words.OPPOSITES), 2)
    return f"The opposite of {one} is {other}."


def _opinion(rng: Random) -> str:
    verdict, ending = rng.choice(templates.OPINIONS)
    what = rng.choice(("film", "play", "concert", "show"))
    return f"The {what} was {verdict}. {ending}"


KINDS: Final[dict[str, tuple[float, Callable[[Random], str]]]] = {
    "gift": (0.30, _gift),
    "trio": (0.04, _trio),
    "capitals": (0.14, _capitals),
    "languages": (0.04, _languages),
    "years": (0.12, _years),
    "quotation": (0.05, _quotation),
    "repeat": (0.07, _repeat),
    "food": (0.09, _food),
    "story": (0.07, _story),
    "nature": (0.04, _nature),
    "agreement": (0.02, _agreement),
    "order": (0.015, _order),
    "opinion": (0.005, _opinion),
}
"""Kind of document → its share of the documents, and the function that writes one."""


def _ask_gift(rng: Random) -> Question:
    giver, receiver, third = people(rng, 3)
    prompt = gift_scene(rng, giver, receiver, rng.random() < 0.5)
    if rng.random() < 0.2:
        prompt = fill(rng, rng.choice(templates.DISTRACTORS).replace("{C}", third)) + " " + prompt
    return Question(prompt, f" {receiver}")


def _ask_capital(rng: Random) -> Question:
    while True:
        template = rng.choice(templates.COUNTRY_FACTS + templates.CAPITAL_FACTS)
        country = rng.choice(COUNTRIES)
        if not holdout.fact(template, country.name):
            return Question(*ask(template, country))


def _ask_repeat(rng: Random) -> Question:
    chosen = rng.sample(REPEATED_WORDS, rng.randint(4, 10))
    at = rng.randrange(1, len(chosen))
    prompt = "".join(f" {word}" for word in chosen + chosen[:at])
    return Question(prompt, f" {chosen[at]}")


def _ask_year(rng: Random) -> Question:
    while True:
        start = 100 * rng.randint(11, 19) + rng.randint(2, 98)
        if not holdout.start_year(start):
            break
    ending = rng.randint(start % 100 + 1, 99)
    stem = rng.choice(templates.SPANS).split("{end}")[0]
    return Question(fill(rng, stem, start=str(start)) + str(start // 100), f"{ending:02d}")


QUESTIONS: Final[tuple[tuple[float, Callable[[Random], Question]], ...]] = (
    (0.45, _ask_gift),
    (0.15, _ask_capital),
    (0.2, _ask_repeat),
    (0.2, _ask_year),
)
"""Share of the questions, and the function that makes one."""


def main() -> None:
    """Print some documents with their kinds."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--count", type=int, default=40)
    options = parser.parse_args()
    for document in documents(options.seed, options.count):
        print(f"{document.kind:>10}  {document.text}")


if __name__ == "__main__":
    main()
