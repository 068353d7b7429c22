"""The drawing of a block: readable by people, by screen readers and by parsers."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from microtome.errors import EffectsError
from microtome.language.sites import SITES
from microtome.report.diagram import HEIGHT, PLACES, WIDTH, diagram
from microtome.report.html import texts_of
from microtome.texts import LANGUAGES

SVG = ET.Element


def parsed(*sites: str, lang: str = "en") -> SVG:
    return ET.fromstring(diagram(sites, texts_of(lang)))


def marks(svg: SVG) -> list[tuple[float, float]]:
    return [
        (float(c.get("cx")), float(c.get("cy")))
        for c in svg.iter("circle")
        if c.get("class") == "mark"
    ]


@pytest.mark.parametrize("site", PLACES)
def test_the_mark_stands_at_the_site_inside_the_drawing(site):
    svg = parsed(site)
    assert marks(svg) == [PLACES[site]]
    x, y = PLACES[site]
    assert 0 < x < WIDTH
    assert 0 < y < HEIGHT


def test_every_site_of_a_block_has_a_place():
    assert set(PLACES) == set(SITES) - {"embed", "final_in", "logits"}


@pytest.mark.parametrize("lang", LANGUAGES)
def test_it_says_in_words_what_it_shows(lang):
    svg = parsed("z", "resid_post", lang=lang)
    assert svg.get("role") == "img"
    assert "z, resid_post" in svg.get("aria-label")
    assert svg.find("title").text == texts_of(lang)("diagram.title")
    assert len(marks(svg)) == 2
    assert texts_of(lang)("diagram.edited") in "".join(svg.itertext())


@pytest.mark.parametrize(
    ("sites", "labels"),
    [
        (("q", "k", "z"), {"q, k: edited here": 166, "z": 286}),
        (("q", "pattern"), {"q": 166, "pattern": 222}),  # no room for more between them
        (("z", "q"), {"z: edited here": 286, "q": 166}),
    ],
)
def test_labels_under_the_frame_do_not_lie_over_each_other(sites, labels):
    named = [one for one in parsed(*sites).iter("text") if one.get("class") == "mark-name"]
    assert {one.text: int(one.get("x")) for one in named} == labels


@pytest.mark.parametrize("lang", LANGUAGES)
def test_in_a_parallel_block_the_mlp_reads_what_attention_reads(lang):
    texts = texts_of(lang)
    both = [str(diagram(["z"], texts, parallel)) for parallel in (False, True)]
    start = [f'points="{x},' in drawing.split("<svg")[1] for x in (456,) for drawing in both]
    assert start == [True, False]
    words = [ET.fromstring(drawing).get("aria-label") for drawing in both]
    assert words[0] != words[1]


def test_colors_come_from_the_page():
    assert "#" not in diagram(["z"], texts_of("en"))


def test_a_site_outside_a_block_is_refused():
    with pytest.raises(EffectsError, match="'logits' has no place"):
        diagram(["logits"], texts_of("en"))
