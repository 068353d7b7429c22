"""The open word classes of nano's world, each a tuple that templates draw from by its name.

Every word here is meant to be a single token when a space precedes it; `tokenizer.py` refuses a
vocabulary in which one is not.
"""

from __future__ import annotations

from typing import Final


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


FEMALE_NAMES: Final = _words("""
    Sally Mary Anna Emma Alice Laura Sarah Rachel Lisa Julia Kate Jane Amy Emily Rose Lucy Clara
    Grace Helen Nina Maria Susan Linda Karen Nancy Betty Ruth Sharon Michelle Jessica Jennifer
    Amanda Melissa Rebecca Nicole Elizabeth Katherine Christine Samantha Angela Victoria Hannah
    Diana Sophie Olivia
""")
MALE_NAMES: Final = _words("""
    Sam John Tom Paul Mark James Peter David Daniel Michael Robert William Thomas George Henry
    Jack Adam Simon Kevin Brian Eric Ryan Jason Justin Andrew Joseph Steven Richard Charles
    Anthony Patrick Scott Aaron Nathan Kyle Jacob Matthew Christopher Joshua Alexander Benjamin
    Martin Oliver Frank Max
""")
NAMES: Final = FEMALE_NAMES + MALE_NAMES

PLACES: Final = _words("""
    park store garden restaurant school hospital office house station market library museum beach
    zoo theatre bakery church farm hotel bank cinema castle lake river forest airport stadium
    kitchen shop café village harbour gym university playground
""")
BUILDINGS: Final = _words("""
    store restaurant school hospital house station library museum zoo theatre bakery church hotel
    bank cinema castle stadium shop café gym university
""")
OBJECTS: Final = _words("""
    gift ring kiss bone basketball computer necklace drink snack book letter flower ball pen card
    key box hat coat watch bottle cup lamp map photo toy ticket coin basket apple orange umbrella
    egg painting guitar bag phone knife pencil chair
""")
FOODS: Final = (
    *_words("""
    pizza pineapple butter bread cheese rice soup salad honey chocolate pasta fish chicken cake
    fruit meat corn salt sugar pepper garlic toast yogurt jam cream ham tofu spinach lettuce
"""),
    "peanut butter",
)
PLURAL_FOODS: Final = _words("""
    tomatoes potatoes onions mushrooms olives beans eggs apples bananas oranges grapes carrots
    pancakes noodles nuts cookies strawberries cherries lemons peanuts
""")
DRINKS: Final = _words("water milk tea coffee juice lemonade cocoa")
ANIMALS: Final = _words(
    "dog cat horse cow bird fox rabbit bear duck mouse lion tiger wolf sheep goat frog"
)
THINGS: Final = _words("""
    table door window wall tree road bridge car train boat bus bicycle clock piano roof floor
    mirror desk shelf fence tower gate
""")
COLOURS: Final = _words("red blue green yellow black white brown grey pink purple")
ADJECTIVES: Final = _words("""
    big small old new young tall short happy sad quiet loud clean dirty warm cold fast slow heavy
    light bright dark strong weak rich poor kind brave
""")
FEELINGS: Final = _words("happy sad tired hungry thirsty angry proud afraid bored excited")
JOBS: Final = _words("""
    teacher doctor nurse farmer baker driver singer painter writer lawyer pilot sailor soldier
    judge cook gardener student engineer dancer scientist
""")
WEATHER: Final = _words("sunny rainy cold warm windy cloudy snowy foggy hot stormy")
DAYS: Final = _words("Monday Tuesday Wednesday Thursday Friday Saturday Sunday")
MONTHS: Final = _words("""
    January February March April May June July August September October November December
""")
NUMBERS: Final = _words("one two three four five six seven eight nine ten eleven twelve")
EVENTS: Final = _words("""
    war siege reign strike voyage expedition campaign conflict battle famine drought plague
    journey project trial marriage friendship partnership rebellion revolution crisis dynasty
    construction festival occupation truce debate search dispute exhibition
""")

OPPOSITES: Final = (
    ("hot", "cold"),
    ("big", "small"),
    ("tall", "short"),
    ("old", "young"),
    ("fast", "slow"),
    ("light", "dark"),
    ("happy", "sad"),
    ("rich", "poor"),
    ("clean", "dirty"),
    ("loud", "quiet"),
    ("strong", "weak"),
    ("early", "late"),
    ("open", "closed"),
    ("full", "empty"),
    ("good", "bad"),
    ("up", "down"),
    ("left", "right"),
    ("wet", "dry"),
    ("near", "far"),
    ("true", "false"),
)
PLURALS: Final = (
    ("dog", "dogs"),
    ("cat", "cats"),
    ("horse", "horses"),
    ("cow", "cows"),
    ("bird", "birds"),
    ("rabbit", "rabbits"),
    ("duck", "ducks"),
    ("goat", "goats"),
    ("child", "children"),
    ("teacher", "teachers"),
    ("doctor", "doctors"),
    ("farmer", "farmers"),
    ("student", "students"),
    ("key", "keys"),
    ("book", "books"),
    ("house", "houses"),
)

CLASSES: Final[dict[str, tuple[str, ...]]] = {
    "place": PLACES,
    "building": BUILDINGS,
    "object": OBJECTS,
    "food": FOODS,
    "plural_food": PLURAL_FOODS,
    "drink": DRINKS,
    "animal": ANIMALS,
    "thing": THINGS,
    "colour": COLOURS,
    "adjective": ADJECTIVES,
    "feeling": FEELINGS,
    "job": JOBS,
    "weather": WEATHER,
    "day": DAYS,
    "month": MONTHS,
    "event": EVENTS,
}
"""Slot name in a template → the words that may fill it."""
