"""What nano is to know by heart: countries with their capitals and languages, and quotations."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Country:
    """A country of one word, its capital of one word, a language spoken there, its continent."""

    name: str
    capital: str
    language: str
    continent: str


COUNTRIES: Final = tuple(
    Country(*row.split())
    for row in """
    Germany Berlin German Europe
    France Paris French Europe
    Italy Rome Italian Europe
    Spain Madrid Spanish Europe
    Portugal Lisbon Portuguese Europe
    England London English Europe
    Ireland Dublin English Europe
    Scotland Edinburgh English Europe
    Belgium Brussels French Europe
    Austria Vienna German Europe
    Switzerland Bern German Europe
    Denmark Copenhagen Danish Europe
    Norway Oslo Norwegian Europe
    Sweden Stockholm Swedish Europe
    Finland Helsinki Finnish Europe
    Iceland Reykjavik Icelandic Europe
    Poland Warsaw Polish Europe
    Hungary Budapest Hungarian Europe
    Greece Athens Greek Europe
    Romania Bucharest Romanian Europe
    Bulgaria Sofia Bulgarian Europe
    Croatia Zagreb Croatian Europe
    Serbia Belgrade Serbian Europe
    Ukraine Kyiv Ukrainian Europe
    Russia Moscow Russian Europe
    Turkey Ankara Turkish Asia
    Egypt Cairo Arabic Africa
    Morocco Rabat Arabic Africa
    Kenya Nairobi Swahili Africa
    Ghana Accra English Africa
    Nigeria Abuja English Africa
    Iran Tehran Persian Asia
    Iraq Baghdad Arabic Asia
    Syria Damascus Arabic Asia
    Lebanon Beirut Arabic Asia
    India Delhi Hindi Asia
    Nepal Kathmandu Nepali Asia
    China Beijing Chinese Asia
    Japan Tokyo Japanese Asia
    Thailand Bangkok Thai Asia
    Vietnam Hanoi Vietnamese Asia
    Indonesia Jakarta Indonesian Asia
    Canada Ottawa English America
    Cuba Havana Spanish America
    Peru Lima Spanish America
    Chile Santiago Spanish America
    Colombia Bogota Spanish America
    Jamaica Kingston English America
    Australia Canberra English Oceania
    """.strip().splitlines()
)


@dataclass(frozen=True)
class Quotation:
    """A well-known short line and whom it is attributed to."""

    text: str
    author: str


QUOTATIONS: Final = tuple(
    Quotation(text, author)
    for text, author in (
        ("I have no special talents. I am only passionately curious.", "Albert Einstein"),
        ("I think, therefore I am.", "René Descartes"),
        ("To be, or not to be, that is the question.", "William Shakespeare"),
        ("All the world's a stage.", "William Shakespeare"),
        ("Brevity is the soul of wit.", "William Shakespeare"),
        ("Knowledge is power.", "Francis Bacon"),
        ("I came, I saw, I conquered.", "Julius Caesar"),
        ("The unexamined life is not worth living.", "Socrates"),
        ("No man ever steps in the same river twice.", "Heraclitus"),
        ("A journey of a thousand miles begins with a single step.", "Laozi"),
        ("Man is born free, and everywhere he is in chains.", "Jean-Jacques Rousseau"),
        ("An investment in knowledge pays the best interest.", "Benjamin Franklin"),
        ("Time is money.", "Benjamin Franklin"),
        ("A house divided against itself cannot stand.", "Abraham Lincoln"),
        ("What does not kill me makes me stronger.", "Friedrich Nietzsche"),
        ("I can resist everything except temptation.", "Oscar Wilde"),
        ("Hope is the thing with feathers.", "Emily Dickinson"),
        ("A thing of beauty is a joy for ever.", "John Keats"),
        ("It was the best of times, it was the worst of times.", "Charles Dickens"),
        ("Call me Ishmael.", "Herman Melville"),
        ("The only thing we have to fear is fear itself.", "Franklin Roosevelt"),
        ("Fortune favours the prepared mind.", "Louis Pasteur"),
        ("Give me a place to stand, and I will move the earth.", "Archimedes"),
        ("The child is father of the man.", "William Wordsworth"),
    )
)
