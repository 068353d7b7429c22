"""Legs: what continues the texts is said in one pass or two, and read on the way.

A target of several tokens is read token by token, each behind the text and those before it, which
are forced on the model. A contrast of several tokens is another way on, so it takes a pass of its
own. Edits are of the text alone, wherever its addresses point. Pure: no tensor is touched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, cast

from microtome.plan.question import Question

if TYPE_CHECKING:
    from microtome.readings.output import Reading, Step
    from microtome.readings.registry import Asked


def legs_of(question: Question) -> tuple[Question, ...]:
    """The questions that a question's answer is put together from: mostly itself alone."""
    several = [field for field in ("target", "contrast") if is_several(question, field)]
    split = [one for one in question.readings if is_split(question, one)]
    if not split:
        return (question,)
    ways = [field for field in several if any(field in one.fields for one in split)]
    legs = []
    for number, field in enumerate(ways):
        own: list[Asked] = []
        for one in question.asked:
            if one not in split:
                own += [one] if number == 0 else []
                continue
            for read in _fields(one):
                if read == field or (number == 0 and read not in ways):
                    own += steps_of(question, one, read)
        encoded = tuple(one.forced(field) for one in question.encoded)
        legs.append(replace(question, encoded=encoded, asked=tuple(dict.fromkeys(own))))
    return tuple(legs)


def is_several(question: Question, field: str) -> bool:
    """Whether any prompt's target (or contrast) is several tokens."""
    return any(one.row(field) for one in question.encoded)


def is_split(question: Question, reading: Asked) -> bool:
    """Whether a metric is read token by token."""
    return any(is_several(question, field) for field in _fields(reading))


def steps_of(question: Question, reading: Asked, field: str) -> Sequence[Step]:
    """The readings of each token of the longest target (or contrast)."""
    longest = max(1, *(len(one.row(field)) for one in question.encoded))
    return cast("Reading", reading).steps(field, longest)  # nothing inside the model is split


def _fields(reading: Asked) -> tuple[str, ...]:
    return () if reading.inside else cast("Reading", reading).fields
