"""Alignment: which token of one prompt stands in the place of which token of another.

Activations are taken from a donor at the counterparts of the addressed positions. In prompts of
one length that is the same position. Prompts of different lengths are aligned only when an edit
asks for it (``patch(align="roles")``): by their roles or by their words. Where it cannot be said
which token stands for one, it has no counterpart, and none is made up. Pure: no tensor is touched.

>>> one = Tokens.of_texts("The", " cat", " sat", " down")
>>> other = Tokens.of_texts("The", " old", " cat", " sat")
>>> aligned("words", one, other).there
(0, 2, 3, None)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import cached_property, lru_cache
from types import MappingProxyType

import numpy as np

from microtome.amounts import many
from microtome.errors import PromptError, listing
from microtome.language.regions import Column
from microtome.prompts.tokens import Tokens
from microtome.prompts.words import words_of

SAME = "position"
"""The default: a position is the same position, a role is where the other prompt has it."""

ABSENT = -1
"""In a column of counterparts: there is none."""

Counterpart = int | None


@dataclass(frozen=True)
class Alignment:
    """Two prompts, token by token.

    Attributes:
        by: how they were aligned.
        tokens: the prompt.
        other: the other one.
        there: per position of the prompt, its counterpart's position in the other; None where it
            has none.
    """

    by: str
    tokens: Tokens
    other: Tokens
    there: tuple[Counterpart, ...]

    @cached_property
    def column(self) -> Column:
        """The counterparts as numbers, `ABSENT` where there is none."""
        return np.array([ABSENT if place is None else place for place in self.there])

    @property
    def matched(self) -> tuple[int, ...]:
        """The positions that have a counterpart."""
        return tuple(here for here, place in enumerate(self.there) if place is not None)

    def of(self, positions: Sequence[int], what: object) -> tuple[int, ...]:
        """The counterparts of some positions; ``what`` begins the sentence that refuses one.

        Raises:
            PromptError: one has none; the message shows both prompts token by token.
        """
        found = [(here, self.there[here]) for here in positions]
        lost = [here for here, place in found if place is None]
        if lost:
            have = f"@{{{','.join(map(str, self.matched))}}}" if self.matched else "none"
            raise PromptError(
                f"{what}: aligned by {self.by}, position {listing(lost)} of the prompt has no "
                f"counterpart in the other one. Those that have one: {have}; in a map, '@*' leaves "
                f"the others out.\n{self}"
            )
        return tuple(place for _, place in found if place is not None)

    def __str__(self) -> str:
        """A line per token: position and text here, then there.

        >>> one, other = Tokens.of_texts("A", " cat"), Tokens.of_texts("A", " fat", " cat")
        >>> print(aligned("words", one, other))
          0:'A'    = 0:'A'
                   · 1:' fat'
          1:' cat' = 2:' cat'
        """
        shown = [f"{n}:{piece!r}" for n, piece in enumerate(self.tokens.pieces)]
        width = max(map(len, shown))
        return "\n".join(f"  {line}" for line in self._lines(shown, width))

    def _lines(self, shown: Sequence[str], width: int) -> Iterator[str]:
        """In the order of the prompt; what only the other has comes before its next token there."""
        unused = sorted(set(range(len(self.other))) - set(self.there), reverse=True)
        for text, place in zip(shown, self.there, strict=True):
            while place is not None and unused and unused[-1] < place:
                yield f"{'':{width}} · {self._named(unused.pop())}"
            mark = "· nothing" if place is None else f"= {self._named(place)}"
            yield f"{text:{width}} {mark}"
        while unused:
            yield f"{'':{width}} · {self._named(unused.pop())}"

    def _named(self, place: int) -> str:
        return f"{place}:{self.other.pieces[place]!r}"


# -------------------------------------------------------------------------------------- by roles


def by_roles(tokens: Tokens, other: Tokens) -> list[Counterpart]:
    """Roles are where the other prompt has them; the tokens between, one by one.

    A role's word is a unit: where it is of as many tokens in both prompts they match one by one,
    else the last ones do. Between two neighbours, in the order of each prompt, tokens match one by
    one where there are equally many. What the tokenizer puts in front, and the last token, are
    found in both prompts too.

    Raises:
        PromptError: a role's place is not in a prompt, or roles share a token in one prompt alone.
    """
    there: list[Counterpart] = [None] * len(tokens)
    here_after, there_after = 0, 0
    ours, theirs = _anchors(tokens, other)
    for here, place in zip(_in_order(ours), _in_order(theirs), strict=True):
        _one_by_one(there, range(here_after, here.start), range(there_after, place.start))
        here_after, there_after = here.stop, place.stop
    _one_by_one(there, range(here_after, len(tokens)), range(there_after, len(other)))
    for name, here in ours.items():
        _from_the_end(there, here, theirs[name])
    return there


def _anchors(tokens: Tokens, other: Tokens) -> tuple[dict[str, range], dict[str, range]]:
    """Where each prompt has its roles; and what every prompt has, where no role is."""
    ours = {name: tokens.extent(name) for name in tokens.places}
    theirs = {name: other.extent(name) for name in tokens.places}
    # A place that is a number in one prompt says nothing of how many tokens its word has.
    for name, here in ours.items():
        if isinstance(tokens.places[name], int) or isinstance(other.places[name], int):
            ours[name], theirs[name] = here[-1:], theirs[name][-1:]
    _check_order(tokens, other, ours, theirs)
    ends = {
        f"{n}": (range(n, n + 1), range(n, n + 1)) for n in range(_same_start(tokens, other))
    } | {"last": (range(len(tokens))[-1:], range(len(other))[-1:])}
    for name, (here, place) in ends.items():
        if _free(here, ours) and _free(place, theirs):
            ours[name], theirs[name] = here, place
    return ours, theirs


def _same_start(tokens: Tokens, other: Tokens) -> int:
    """How many tokens of those that the tokenizer itself puts in front are the same."""
    pairs = zip(tokens.ids, other.ids, tokens.added, other.added, strict=False)
    same = [one == two and added and also for one, two, added, also in pairs]
    return next((n for n, alike in enumerate(same) if not alike), len(same))


def _free(place: range, taken: Mapping[str, range]) -> bool:
    return not any(place.start < one.stop and one.start < place.stop for one in taken.values())


def _in_order(anchors: Mapping[str, range]) -> list[range]:
    return sorted(set(anchors.values()), key=lambda one: (one.start, one.stop))


def _check_order(
    tokens: Tokens, other: Tokens, ours: Mapping[str, range], theirs: Mapping[str, range]
) -> None:
    """Two roles are one place in both prompts, or apart in both; else nothing lies between them."""
    for one, here in ours.items():
        for two in ours:
            same = here == ours[two], theirs[one] == theirs[two]
            apart = one == two or (
                _free(here, {two: ours[two]}) and _free(theirs[one], {two: theirs[two]})
            )
            if same != (True, True) and not apart:
                raise PromptError(
                    f"The roles {one!r} and {two!r} share a token in one prompt and not in the "
                    f"other, so the prompts cannot be aligned by roles.\n  {tokens}\n  {other}"
                )


def _one_by_one(there: list[Counterpart], here: range, places: range) -> None:
    """Where there are equally many."""
    if len(here) == len(places):
        there[here.start : here.stop] = list(places)


def _from_the_end(there: list[Counterpart], here: range, places: range) -> None:
    """A word and its counterpart: one by one where they are equally long, else the last tokens."""
    _one_by_one(there, here, places)
    there[here[-1]] = places[-1]


# -------------------------------------------------------------------------------------- by words


def by_words(tokens: Tokens, other: Tokens) -> list[Counterpart]:
    """Equal words in the same order match; nothing else does.

    A word is matched with its punctuation apart, and regardless of the white space around it. One
    that is of as many tokens in both prompts matches one by one, else its last token does.
    """
    there: list[Counterpart] = [None] * len(tokens)
    ours, theirs = _words(tokens), _words(other)
    texts = [_read(tokens, one) for one in ours], [_read(other, one) for one in theirs]
    for block in SequenceMatcher(None, *texts, autojunk=False).get_matching_blocks():
        for n in range(block.size):
            _from_the_end(there, ours[block.a + n], theirs[block.b + n])
    return there


def _words(tokens: Tokens) -> list[range]:
    """The tokens of each word; of several words, where a token has parts of them."""
    words = [*words_of(tokens.text)]
    cuts = [
        n
        for n, ((_, before), (after, _)) in enumerate(
            zip(tokens.offsets, tokens.offsets[1:], strict=False), 1
        )
        if tokens.added[n - 1]
        or tokens.added[n]
        or not any(start < before and after < end for start, end in words)
    ]
    starts, stops = [0, *cuts], [*cuts, len(tokens)]
    return [range(start, stop) for start, stop in zip(starts, stops, strict=True)]


def _read(tokens: Tokens, word: range) -> tuple[str, tuple[int, ...]]:
    """What a word reads as; what the tokenizer added is told apart by its ids."""
    start, end = tokens.offsets[word.start][0], tokens.offsets[word[-1]][1]
    text = tokens.text[start:end].strip()
    ids = tokens.ids[word.start : word.stop]
    return text, () if text else ids


# ------------------------------------------------------------------------------------------ both


def _same_positions(tokens: Tokens, other: Tokens) -> list[Counterpart]:
    if len(tokens) != len(other):
        raise PromptError(
            f"The prompts differ in length, {len(tokens)} and {many(len(other), 'token')}, so "
            "their "
            f"positions do not match.\n  {tokens}\n  {other}"
        )
    return list(range(len(tokens)))


ALIGNMENTS: Mapping[str, Callable[[Tokens, Tokens], list[Counterpart]]] = MappingProxyType(
    {SAME: _same_positions, "roles": by_roles, "words": by_words}
)
"""Name → how two prompts are aligned."""


@lru_cache(maxsize=2**13)
def aligned(by: str, tokens: Tokens, other: Tokens) -> Alignment:
    """Two prompts, aligned in one of the `ALIGNMENTS`.

    Raises:
        PromptError: they cannot be aligned in this way.
    """
    return Alignment(by, tokens, other, tuple(ALIGNMENTS[by](tokens, other)))
