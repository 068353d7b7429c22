"""Visits: what is to be done at a site of a layer when a pass gets there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from microtome.language.sites import Site
from microtome.model.families.taps import Tap
from microtome.passes.branches import Heads
from microtome.passes.segments import Segment

Place = tuple[Site, int | None]
"""A site of a layer (None where the site is in no layer)."""


@dataclass(frozen=True, eq=False)
class Visit:
    """Something to do at one site of one layer, once, when the pass gets there.

    ``act`` receives the site's values as a view ``[batch, *axes]``; only where ``writes`` is true
    may it change them. ``heads`` says which heads of which rows a writer changes, where that is not
    all (`Branches` and detours need to know); at a site that is as wide as the stream for every
    head (`APART`) it receives these alone, ``[row, pos, head, d_model]``. ``tap`` is where the
    values are, if that is not where the site is. A ``fine`` one gets attention weights before they
    are rounded to half precision, where they can be had so. One ``within`` a segment receives the
    rows of that alone, of a pass whose batch is one row of tokens. Two are never the same: each is
    counted by itself.
    """

    place: Place
    act: Callable[[Tensor], None]
    writes: bool = False
    heads: Heads | None = None
    tap: Tap | None = None
    fine: bool = False
    within: Segment | None = None
