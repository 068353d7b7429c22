"""Texts side by side in several languages: filled in, refused, complete."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import microtome
from microtome import texts
from microtome.errors import TextError
from microtome.stats import Estimate
from microtome.texts import LANGUAGES, Texts, catalogue, places

ENTRIES = {
    "heads": {"en": "{n} heads, {x:.2f}", "vi": "{x:.2f}: {n} đầu"},
    "estimate.interval": {"en": "{value} ({low} … {high}; {n})", "vi": "{value} ({n})"},
    "estimate.alone": {"en": "{value} alone", "vi": "{value} thôi"},
    "estimate.none": {"en": "none of {n}", "vi": "không, {n}"},
}


def test_a_text_is_filled_in_and_a_minus_is_one():
    assert Texts("en", ENTRIES)("heads", n=3, x=-0.5) == "3 heads, −0.50"
    assert Texts("vi", ENTRIES)("heads", n=3, x=-0.5) == "−0.50: 3 đầu"


def test_a_hyphen_in_a_word_stays_a_hyphen():
    say = Texts("en", {"w": {"en": "{word}", "vi": "{word}"}})
    assert say("w", word="one-pass") == "one-pass"


def test_an_estimate_brings_its_interval_or_says_that_there_is_none():
    say = Texts("en", ENTRIES | {"e": {"en": "{e}", "vi": "{e}"}})
    assert say("e", e=Estimate(1.0, 0.5, 1.5, 0.1, 9)) == "1.0 (0.5 … 1.5; 9)"
    assert say("e", e=Estimate(1.0, float("nan"), float("nan"), 0.1, 1)) == "1.0 alone"
    assert say("e", e=Estimate(*[float("nan")] * 4, 2)) == "none of 2"


def test_a_large_number_is_written_in_full():
    say = Texts("en", {"r": {"en": "{r:.3g}", "vi": "{r:.3g}"}})
    assert say("r", r=11880.0) == "11,900"
    assert say("r", r=-11880.0) == "−11,900"
    assert say("r", r=2e12) == "2e+12"


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: Texts("fr", ENTRIES), "no language 'fr'; there are: en, vi"),
        (lambda: Texts("en", ENTRIES)("haeds"), "no text 'haeds'. Did you mean 'heads'?"),
        (lambda: Texts("en", ENTRIES)("heads", n=3), "'heads' cannot be filled"),
        (lambda: Texts("en", ENTRIES)("heads", n=3, x="wide"), "'heads' cannot be filled"),
    ],
)
def test_what_is_not_there_is_refused(call, words):
    with pytest.raises(TextError, match=words):
        call()


def test_places_count_with_their_formats():
    assert places("{n} of {n}, {p:.2g} {{kept}}") == {"n": 2, "p:.2g": 1}


@pytest.mark.parametrize(
    ("written", "words"),
    [
        ("a: {en: one}", "a needs one text in each of en, vi"),
        ("a: {en: one, vi: một, fr: un}", "a needs one text in each"),
        ("a: {en: one, vi: 1}", "a needs one text in each"),
        ("a: {b: {en: '{n}', vi: '{m}'}}", r"a\.b has not the same places"),
        ("a: {b: {en: '{n:.2f}', vi: '{n}'}}", r"a\.b has not the same places"),
        ("a: one", "a is not under a language"),
    ],
)
def test_a_file_with_a_gap_is_refused(written, words, tmp_path, monkeypatch):
    (tmp_path / "some.yaml").write_text(written)
    monkeypatch.setattr(texts, "files", lambda package: tmp_path)
    catalogue.cache_clear()
    with pytest.raises(TextError, match=words):
        catalogue("package", "some.yaml")
    catalogue.cache_clear()


def test_the_languages_of_the_project():
    assert list(LANGUAGES) == ["en", "vi"]


def test_what_is_counted_is_one_or_several():
    told = Texts("en", {"n": {"en": "{n:cell|cells} of {of}", "vi": "{n} ô trên {of}"}})
    assert told("n", n=1, of=3) == "1 cell of 3"
    assert told("n", n="1", of=3) == "1 cell of 3"  # written already
    assert told("n", n=2, of=3) == "2 cells of 3"
    assert told("n", n="1,024", of=3) == "1,024 cells of 3"
    assert replace(told, lang="vi")("n", n=1, of=3) == "1 ô trên 3"


COUNTED = r"\{\w+\} (prompts|cells|tokens|edges|layers|heads|nodes|steps|seeds|pairs|models)\b"


PLACE = r"\{\w+:[a-z]+\|[a-z]+\}"
PLURAL = rf"\bare {PLACE}(?!:)|{PLACE} (are|have|allow|raise|lower|do|differ)\b"


def test_no_text_says_1_cells():
    package = Path(microtome.__file__).parent
    found = [
        f"{path.name}: {name}"
        for path in package.rglob("*.yaml")
        for name, text in english(yaml.safe_load(path.read_text(encoding="utf-8")))
        if re.search(f"{COUNTED}|{PLURAL}", text)
    ]
    assert not found, found


def english(node: object, under: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(node, Mapping):
        for name, below in node.items():
            if name == "en" and isinstance(below, str):
                yield under, below
            else:
                yield from english(below, f"{under}.{name}")
