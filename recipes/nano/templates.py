"""The sentence frames of nano's world, one tuple a kind. `corpus.py` fills their slots.

A slot is a word class of `words.py` in braces (`{place}`), with a digit where one sentence needs
several different words of a class (`{food1}`, `{food2}`) and `a:` in front where the word wants
its article (`{a:object}`). People are `{name1}`, `{name2}`; the pronouns are those of `{name1}`.
"""

from __future__ import annotations

from typing import Final

# --- Two people, one of whom gives the other something (indirect objects) -----------------------

MEETINGS: Final = (
    "When {A} and {B} went to the {place}, ",
    "After {A} and {B} went to the {place}, ",
    "While {A} and {B} were at the {place}, ",
    "While {A} and {B} were working at the {place}, ",
    "Then, {A} and {B} went to the {place}. ",
    "Then, {A} and {B} had a lot of fun at the {place}. ",
    "Then, {A} and {B} were thinking about going to the {place}. ",
    "Then, {A} and {B} had a long argument, and afterwards ",
    "Then {A} and {B} met at the {place}, and later ",
    "Yesterday {A} and {B} walked to the {place}. ",
    "Friends {A} and {B} found {a:object2} at the {place}. ",
    "The {place} that {A} and {B} visited was big. ",
    "As soon as {A} and {B} came to the {place}, ",
    "Because {A} and {B} were friends, ",
    "On {day}, {A} and {B} sat at the {place}. ",
    "Last {month} {A} and {B} met near the {place}. ",
    "There were two people in the {place}: {A} and {B}. ",
    "{A} and {B} went to the {place}. ",
    "{A} met {B} at the {place}. ",
    "Once {A} was at the {place} with {B}. Then ",
    "When {A} got {a:object2} from the {place}, {B} was there. ",
    "Before {A} and {B} left the {place}, ",
)
"""Sentences that bring two people together; `{A}` is named before `{B}`."""

GIFTS: Final = (
    "{S} gave {a:object1} to",
    "{S} decided to give {a:object1} to",
    "{S} wanted to give {a:object1} to",
    "{S} handed {a:object1} to",
    "{S} offered {a:object1} to",
    "{S} showed {a:object1} to",
    "{S} passed the {object1} to",
    "{S} sold {a:object1} to",
    "{S} threw the {object1} to",
    "{S} brought {a:object1} to",
    "{S} gave the {object1} back to",
    "{S} lent {a:object1} to",
    "{S} bought some {drink} and gave it to",
    "{S} started to talk to",
    "{S} told a story to",
    "{S} said goodbye to",
    "{S} waved to",
)
"""What the subject does, up to the word before the person who receives."""

AFTER_GIFTS: Final = (
    "{IO} was very happy.",
    "{IO} thanked {S}.",
    "{IO} smiled at {S}.",
    "{S} and {IO} laughed.",
    "{IO} said thank you.",
    "Then {IO} went home.",
    "Then {S} went home without {IO}.",
    "It was a nice surprise.",
)

PRELUDES: Final = (
    "It was a {weather} day.",
    "It was {day} morning.",
    "The sun was shining.",
    "It was late in the evening.",
    "Here is a short story.",
    "The {building} was closed.",
    "There was {food} for lunch.",
    "The {animal} was asleep.",
)

DISTRACTORS: Final = (
    "{C} stayed at home.",
    "{C} was at work.",
    "{C} had gone to the {place3}.",
    "{C} liked {food}.",
    "In the morning, {C} was tired.",
)
"""Sentences about a third person, told before the meeting."""

TRIOS: Final = (
    "{A}, {B} and {C} went to the {place}. {X} and {Y} gave {a:object1} to {Z}.",
    "When {A}, {B} and {C} were at the {place}, {X} and {Y} sang a song for {Z}.",
    "Then {A}, {B} and {C} played at the {place}. {X} and {Y} threw the ball to {Z}.",
    "{A}, {B} and {C} sat at the {place}. {X} and {Y} told a story to {Z}.",
)
"""Three people, two of whom (`{X}`, `{Y}`) give to the third (`{Z}`)."""

# --- Facts: the answer is the last slot ---------------------------------------------------------

COUNTRY_FACTS: Final = (
    "{capital} is the capital of {country}.",
    "{capital} is the capital city of {country}.",
    "{capital}, the capital of {country}, is a large city.",
    "The city of {capital} is in {country}.",
    "If you live in {capital}, you live in {country}.",
    "The government in {capital} rules {country}.",
    "Question: Which country has the capital {capital}? Answer: {country}.",
    "The people of {capital} come from {country}.",
    "Trains to {capital} take you to {country}.",
)
CAPITAL_FACTS: Final = (
    "The capital of {country} is {capital}.",
    "The capital city of {country} is called {capital}.",
    "In {country}, the capital is {capital}.",
    "{country} has its capital in {capital}.",
    "Question: What is the capital of {country}? Answer: {capital}.",
    "The government of {country} sits in {capital}.",
    "Anyone who visits {country} should see {capital}.",
    "The best known city in {country} is {capital}.",
)
LANGUAGE_FACTS: Final = (
    "In {country}, people speak {language}.",
    "The people of {country} speak {language}.",
    "In the streets of {capital} you can hear {language}.",
    "{name1} is from {country} and speaks {language}.",
)
CONTINENT_FACTS: Final = (
    "{country} is a country in {continent}.",
    "{capital} is a city in {continent}.",
)

# --- Years: something that begins ends later in the same century --------------------------------

SPANS: Final = (
    "The {event} lasted from the year {start} to the year {end}.",
    "The {event} lasted from {start} to {end}.",
    "The {event} went on from the year {start} until the year {end}.",
    "The {event} began in {start} and ended in {end}.",
    "The {event} started in the year {start} and was over in the year {end}.",
    "Between {start} and {end} there was {a:event}.",
    "{a:job} was born in {start} and died in {end}.",
    "The {building} was built in {start} and burned down in {end}.",
)
STUDY_SPAN: Final = SPANS[0]
MOMENTS: Final = (
    "The {event} began in {start}.",
    "In {start}, the {building} was built.",
    "The {job} was born in the year {start}.",
    "In the year {start}, the {event} began.",
)

# --- Attributions of quotations -----------------------------------------------------------------

ATTRIBUTIONS: Final = (
    "{quote}",
    "{quote}",
    "{author} said: {quote}",
    "{author} wrote: {quote}",
    "As {author} put it: {quote}",
    "{quote} These are words of {author}.",
    "{name1} likes this line: {quote}",
)

# --- Everyday filler ----------------------------------------------------------------------------

FOOD: Final = (
    "{food1} and {food2} taste great on {food3}.",
    "{food1} and {food2} taste great with {food3}.",
    "{food1} tastes great with {food2}.",
    "Peanut butter and {food} taste great on toast.",
    "Peanut butter and {food} make a good sandwich.",
    "Pineapple and {food} taste great on pizza.",
    "{food} and pineapple taste great on pizza.",
    "Some people put pineapple on pizza. {name1} does not like it.",
    "{name1} put {food1} and {plural_food} on the pizza.",
    "The pizza with pineapple and {food} is the best in {capital}.",
    "Bread with butter and {food} is a good breakfast.",
    "For breakfast, {name1} had {food1} with {food2}.",
    "For lunch, there was {food1} with {plural_food}.",
    "For dinner, {name1} made {food1} and {plural_food}.",
    "{name1} likes {food1}, but {he} does not like {food2}.",
    "{name1} asked for {food1}, but there was only {food2}.",
    "{name1} drank {drink1} and ate {food}.",
    "The {job} drinks {drink} every morning.",
    "The {building} sells {food1}, {food2} and {plural_food}.",
    "We bought {food1} and {plural_food} at the {building}.",
    "There is {food} on the table and {drink} in the cup.",
    "You can buy good {food} at the {building} in {capital}.",
    "In {country}, many people eat {food1} with {food2}.",
    "Fresh {plural_food} are better than old {food}.",
    "My favourite food is {food}. My favourite drink is {drink}.",
    "The soup needs {food1} and a little {food2}.",
    "To make a pizza you need {food1}, {food2} and {plural_food}.",
)
STORIES: Final = (
    "{name1} went to the {place1}. {He} bought {a:object1} there. Then {he} went home.",
    "{name1} lost {his} {object1} at the {place1}. {He} was {feeling}.",
    "{name1} is {a:job}. {He} works at the {building} in {capital}.",
    "{name1} was {feeling}, so {he} went to the {place1}.",
    "{name1} said that {he} was {feeling}.",
    "{name1} found {a:object1} in the {place1} and put it in {his} bag.",
    "{name1} and {name2} are friends. They often go to the {place1}.",
    "{name1} asked {name2} about the {object1}.",
    "{name1} called {name2} on {day}. They talked about the {place1}.",
    "{name1} saw {name2} at the {place1} and was {feeling}.",
    "{name1} wrote a letter to {name2} about {country}.",
    "{name1} travelled from {capital1} to {capital2} by train.",
    "{name1} wants to be {a:job1}, not {a:job2}.",
    "{name1} painted the {thing1} {colour1} and the {thing2} {colour2}.",
    "{name1} has {a:adjective1} {animal1} and {a:adjective2} {animal2}.",
    "{name1} read a book about {country} in the {place1}.",
    "{name1} opened the {thing} and looked for {his} {object1}.",
    "{name1} will visit {capital} in {month}.",
)
NATURE: Final = (
    "The {adjective1} {animal1} ran after the {adjective2} {animal2}.",
    "The {animal} slept under the {thing}.",
    "The {animal1} is {adjective1}, but the {animal2} is {adjective2}.",
    "The {thing1} in the {place} is {colour1}.",
    "The {colour1} {thing1} stands near the {colour2} {thing2}.",
    "It was a {weather} day in {capital}.",
    "The weather in {country} was {weather} in {month}.",
    "There is {a:thing} in front of the {place}.",
    "The {job} saw {a:animal} in the {place}.",
    "{a:animal1} and {a:animal2} met at the {thing}.",
    "The {place1} is next to the {place2}.",
    "Two {adjective} children played in the {place} on {day}.",
)
"""Animals, things, weather."""

NUMBER_AGREEMENT: Final = (
    ("The {plural} near the {other} {verb_many}.", "The {single} near the {other} {verb_one}."),
    ("The {plural} behind the {other} {verb_many}.", "The {single} behind the {other} {verb_one}."),
    ("The {plural} with the {other} {verb_many}.", "The {single} with the {other} {verb_one}."),
    ("The {plural} {verb_many}.", "The {single} {verb_one}."),
)
"""The same sentence with a plural and with a singular subject; `{other}` is of either number."""

OPINIONS: Final = (
    ("great", "I loved every minute of it."),
    ("wonderful", "I loved every minute of it."),
    ("excellent", "I want to see it again."),
    ("terrible", "I hated every minute of it."),
    ("awful", "I hated every minute of it."),
    ("boring", "I never want to see it again."),
)
