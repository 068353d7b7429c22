"""Regions as columns are the regions one by one."""

from __future__ import annotations

import numpy as np
import pytest

from microtome.language.addresses import parse
from microtome.language.regions import Region, Regions
from microtome.language.sites import Dimensions
from microtome.prompts.resolve import layout, regions
from microtome.prompts.tokens import Tokens

DIMS = Dimensions(3, 4, 4, 8, 2, 16, 99)
TOKENS = Tokens.of_texts("a", " b", " c", " d")


@pytest.mark.parametrize(
    ("text", "layer", "stars"),
    [
        ("L*.z.h*@*", 1, {"layer": [1, 1], "head": [0, 3], "pos": [2, 0]}),
        ("L*.z.h{0,2}@-1", 2, {"layer": [2, 2]}),
        ("L1.mlp_post.n*@{0,3}", 1, {"neuron": [5, 15]}),
        ("embed@*", None, {"pos": [0, 3]}),
    ],
)
def test_a_layout_gives_the_regions_of_every_cell(text, layer, stars):
    address = parse(text)
    found = layout(address, DIMS, TOKENS)
    columns = {name: np.array(values) for name, values in stars.items()}
    own = found.at(layer, columns, 2)
    for cell in range(2):
        at = {name: values[cell] for name, values in stars.items()}
        assert (own[cell],) == regions(address.fix(**at), DIMS, TOKENS)
        assert found.regions(**at) == (own[cell],)
        assert found.layer(columns, 2)[cell] == (own[cell].layer or 0)
        position = own[cell].indices[own.site.axes.index("pos")][0]
        assert found.position(columns, 2)[cell] == position
    assert own.shape == own[0].shape == found.shape


def test_columns_that_all_share_stay_shared_when_put_together():
    site = parse("L0.z").site
    one, two = (Region(site, 0, ((pos,), (1,), (0, 1))) for pos in (2, 3))
    both = Regions.together([Regions.of(one), Regions.of(two)])
    assert [len(column) for column in both.columns] == [2, 1, 1]
    assert (both[0], both[1]) == (one, two)
    assert Regions.together([Regions.of(one)])[0] == one
