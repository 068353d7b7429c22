"""Texts in several languages, side by side in one YAML file.

A file nests names; a leaf holds the same text in every language, with places to fill in::

    heads:
      title:
        en: Effect of one head in {layers:layer|layers}
        vi: Tác động của từng đầu chú ý trong {layers} tầng

A place with two words is a number and the word that it counts, the first of the two where it is 1.
"""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from numbers import Real
from typing import Any, Protocol, runtime_checkable

import yaml

from microtome.amounts import many
from microtome.errors import TextError, did_you_mean, listing, there_are

COUNTS = "|"
"""Stands between the words for one and for several, in a place."""
MOST_LAYERS = 2
"""Layers whose vectors are shown by their numbers."""
MOST_NUMBERS = 6
"""Numbers of a list that are written out."""

LANGUAGES: Mapping[str, str] = {"en": "English", "vi": "Tiếng Việt"}
"""Code → name of each language that every text is written in; the first is the default."""


@runtime_checkable
class Estimate(Protocol):
    """A number with its interval, its p value and n, as `microtome.stats.Estimate` has them."""

    value: float
    low: float
    high: float
    p: float
    n: int


Entries = Mapping[str, Mapping[str, str]]
"""Dotted key → language → text."""


@dataclass(frozen=True)
class Texts:
    """Texts in one language, by dotted key.

    Attributes:
        lang: the language's code.
        entries: every text in every language.
        used: how often each key was asked for.

    >>> texts = Texts("vi", {"n": {"en": "{n} heads", "vi": "{n} đầu chú ý"}})
    >>> texts("n", n=3)
    '3 đầu chú ý'
    """

    lang: str
    entries: Entries
    used: Counter[str] = field(default_factory=Counter, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.lang not in LANGUAGES:
            known = there_are(self.lang, LANGUAGES)
            raise TextError(f"There is no language {self.lang!r}; {known}")

    def __call__(self, key: str, /, **values: Any) -> str:
        """The text of a key with its places filled in.

        A minus is written as one (−), and an `Estimate` with its interval and n.

        Raises:
            TextError: there is no such key, or a place has no value.
        """
        if key not in self.entries:
            raise TextError(f"There is no text {key!r}.{did_you_mean(key, self.entries)}")
        self.used[key] += 1
        shown = {
            name: self.estimate(value) if isinstance(value, Estimate) else value
            for name, value in values.items()
        }
        try:
            return _FILLER.vformat(self.entries[key][self.lang], (), shown)
        except (KeyError, ValueError, TypeError) as error:
            raise TextError(f"The text {key!r} cannot be filled with {shown}: {error}.") from error

    def __contains__(self, key: str) -> bool:
        return key in self.entries

    def estimate(self, one: Estimate) -> str:
        """An estimate with its interval and n, or why it has none."""
        if math.isnan(one.value):
            return self("estimate.none", n=one.n)
        if math.isnan(one.low) or math.isnan(one.high):
            return self("estimate.alone", value=one.value, n=one.n)
        return self("estimate.interval", value=one.value, low=one.low, high=one.high, n=one.n)


def places(text: str) -> Counter[str]:
    """The places of a text that are filled in, with their formats.

    What a number counts is no format: each language has its own words, or one for all numbers.

    >>> sorted(places("{n} of {p:.2g} in {m:word|words}"))
    ['m', 'n', 'p:.2g']
    """
    found = string.Formatter().parse(text)
    return Counter(
        name + (f":{form}" if form and COUNTS not in form else "")
        for _, name, form, _ in found
        if name is not None
    )


_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""Which reads the same, ten times as fast, where PyYAML was built with it."""


@cache
def catalogue(package: str, name: str) -> Entries:
    """The texts of a YAML file that lies in a package.

    Raises:
        TextError: a text lacks a language, or its languages have different places.
    """
    # From the top: importing a package for a file of it may import all that it does.
    top, *below = package.split(".")
    where = files(top).joinpath(*below, name)
    entries = dict(_leaves(yaml.load(where.read_text(encoding="utf-8"), _LOADER)))
    for key, leaf in entries.items():
        if set(leaf) != set(LANGUAGES) or not all(isinstance(t, str) for t in leaf.values()):
            raise TextError(f"{name}: {key} needs one text in each of {listing(LANGUAGES)}.")
        if len({frozenset(places(text).items()) for text in leaf.values()}) > 1:
            raise TextError(f"{name}: {key} has not the same places in all languages.")
    return entries


def _leaves(node: Mapping[str, Any], under: str = "") -> Iterator[tuple[str, dict[str, str]]]:
    for name, below in node.items():
        if not isinstance(below, Mapping):
            raise TextError(f"{under}{name} is not under a language.")
        if LANGUAGES.keys() & below.keys():
            yield f"{under}{name}", dict(below)
        else:
            yield from _leaves(below, f"{under}{name}.")


class _Filler(string.Formatter):
    def format_field(self, value: Any, format_spec: str) -> str:
        if COUNTS in format_spec:
            one, several = format_spec.split(COUNTS)
            return f"{self.format_field(value, '')} {one if value in (1, '1') else several}"
        text = format(value, format_spec)
        if isinstance(value, Real) and "e+0" in text:
            text = f"{float(text):,.0f}"  # 1.19e+04 is 11,900 to a reader
        return text.replace("-", "−") if isinstance(value, Real) else text


_FILLER = _Filler()


def number(value: float) -> str:
    """A number in a table: four digits, and large ones in full.

    >>> number(0.123456), number(11880.25), number(1e-7), number(3.0)
    ('0.1235', '11,880', '1e-07', '3')
    """
    return f"{value:,.0f}" if 1e4 <= abs(value) < 1e15 else f"{value:.4g}"


def signed(value: float) -> str:
    """An effect, with its sign.

    >>> signed(-4.5), signed(0.25)
    ('−4.5', '+0.25')
    """
    text = number(value).replace("-", "−")
    return f"+{text}" if value > 0 else text


def brief(text: str, longest: int = 120) -> str:
    """An edit's text, or a coordinate's, with long lists of numbers cut to their first and length.

    >>> brief(f"add({[0.5] * 768}) L5.resid_post")
    'add([0.5, 0.5, … 768 numbers]) L5.resid_post'
    >>> brief(f"add({dict.fromkeys(range(30), [0.5] * 768)}) L*.resid_post")
    'add({0: […], 1: […], … 30 layers}) L*.resid_post'
    >>> brief("scale(0.6) L2.resid_post")
    'scale(0.6) L2.resid_post'
    """

    def cut(found: re.Match[str]) -> str:
        numbers = re.findall(r"[^\[\],\s]+", found[0])
        if len(numbers) <= MOST_NUMBERS:
            return found[0]
        return f"[{', '.join(numbers[:2])}, … {many(len(numbers), 'number')}]"

    def cut_layers(found: re.Match[str]) -> str:
        layers = re.findall(r"(\d+): \[", found[0])
        if len(layers) <= MOST_LAYERS:
            return found[0]
        return f"{{{layers[0]}: […], {layers[1]}: […], … {many(len(layers), 'layer')}}}"

    text = re.sub(r"\{\d+: \[[^{}]*\}", cut_layers, text)
    short = re.sub(r"\[[^A-Za-z\"]*(?:[eE][^A-Za-z\"]*)*\]", cut, text)
    if len(short) <= longest:
        return short
    return short[: longest * 2 // 3] + " … " + short[-longest // 3 + 3 :]


_SHOWN = {" ": "·", "\n": "↵", "\t": "⇥", "\r": "␍"}


def visible(token: str) -> str:
    """A token's text with its white space to be seen.

    >>> visible(" Berlin"), visible("\\n\\n"), visible("")
    ('·Berlin', '↵↵', '∅')
    """
    return "".join(_SHOWN.get(letter, letter) for letter in token) or "∅"
