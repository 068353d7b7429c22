"""Which combinations the training corpus never shows, so that the evaluation can ask for them.

A combination is held out by a hash of its own words, not by a random draw: the split is the same
for every seed, every corpus size and every order of generation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import cache
from itertools import combinations
from typing import Final

SHARE: Final = 0.1
"""Share of the combinations of each kind that is held out."""

STUDY_PAIR: Final = frozenset({"Sam", "Sally"})
STUDY_YEAR: Final = 1732


@cache
def _hashed(*parts: str) -> bool:
    digest = hashlib.sha256("|".join(parts).encode()).digest()
    return int.from_bytes(digest[:4]) < SHARE * 2**32


def name_pair(first: str, second: str) -> bool:
    """Whether no training document names both people, in whichever order."""
    pair = frozenset({first, second})
    return pair == STUDY_PAIR or _hashed("names", *sorted(pair))


def names(people: Iterable[str]) -> bool:
    """Whether any two of the people are a held-out pair."""
    return any(name_pair(a, b) for a, b in combinations(set(people), 2))


def start_year(year: int) -> bool:
    """Whether no training document lets anything begin in this year."""
    return year == STUDY_YEAR or _hashed("year", str(year))


def fact(template: str, subject: str) -> bool:
    """Whether the fact about this subject is never told in this phrasing."""
    return _hashed("fact", template, subject)
