"""The page of families has every family and site, and a hole only where there is no such site."""

from __future__ import annotations

import pytest

from families.page import PAGE, cells_of, text_of
from microtome.language.sites import SITES
from microtome.model.anatomy import Anatomy
from oracles import families as by_hand

SAID = cells_of(PAGE.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", by_hand.FAMILIES)
def test_it_has_no_holes_that_are_not_explained(name):
    hand = by_hand.FAMILIES[name]
    has = {site.name for site in Anatomy.of(by_hand.make(name, 64)).sites}
    for kind in ("read", "edit", "walk"):
        for site in SITES:
            said = SAID[kind, name, site]
            if site not in has or (kind, site) == ("walk", "logits"):
                assert said == "–", (kind, site)
            else:
                assert float(said) <= (1e-6 if kind == "walk" and hand.rounding > 1e-9 else 1e-9)


def test_what_is_written_reads_back():
    found = {("read", "gpt2", "z"): 0.0, ("walk", "llama", "k_head"): 3.2e-15}
    said = cells_of(text_of(found))
    assert (said["read", "gpt2", "z"], said["walk", "llama", "k_head"]) == ("0", "3e-15")
    assert said["edit", "gpt2", "z"] == "–"
