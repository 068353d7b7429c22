"""Edits: what is done to the addressed values, one operation per file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType

from microtome.edits.add import Add
from microtome.edits.apply import Apply
from microtome.edits.base import Context, Edit
from microtome.edits.clamp import Clamp
from microtome.edits.knockout import Knockout
from microtome.edits.mean import Mean
from microtome.edits.noise import Noise
from microtome.edits.patch import Patch
from microtome.edits.project import Project
from microtome.edits.replace import Replace
from microtome.edits.scale import Scale, scale
from microtome.edits.shuffle import Shuffle
from microtome.edits.text import read
from microtome.edits.zero import Zero
from microtome.errors import EditError, glimpse
from microtome.language.operations import Source
from microtome.spoken import spoken

OPERATIONS: Mapping[str, type[Edit]] = MappingProxyType(
    {
        operation.name: operation
        for operation in (
            Zero,
            Mean,
            Scale,
            Noise,
            Patch,
            Replace,
            Add,
            Project,
            Clamp,
            Shuffle,
            Knockout,
            Apply,
        )
    }
)
"""Name → operation."""

zero, mean, noise, patch = Zero, Mean, Noise, Patch
replace, add, project, clamp = Replace, Add, Project, Clamp
shuffle, knockout, apply = Shuffle, Knockout, Apply


@spoken
def edit(text: str) -> Edit:
    """The edit that a text names.

    Raises:
        EditError: the operation does not exist or its parameters are wrong.
        AddressError: the address cannot be read.

    >>> edit("scale(0.6) L2.resid_post").factor
    0.6
    """
    return read(text, OPERATIONS)


def as_edits(given: Edit | str | Iterable[Edit | str]) -> list[Edit]:
    """One edit or several, as objects or as text, as a list of edits.

    Raises:
        EditError: something is no edit; or as `edit`.
        AddressError: as `edit`.

    >>> [str(e) for e in as_edits("zero L0.z.h1")]
    ['zero L0.z.h1']
    """
    whole: object = given
    several = whole if isinstance(whole, Iterable) and not isinstance(whole, str) else [whole]
    return [edit(one) if isinstance(one, str) else _checked(one) for one in several]


def _checked(given: object) -> Edit:
    if not isinstance(given, Edit):
        raise EditError(
            f"{glimpse(given)} is no edit: give an object, zero('L5.z.h3'), or its text, "
            "'zero L5.z.h3'; several in a list."
        )
    return given


__all__ = [
    "OPERATIONS",
    "Add",
    "Apply",
    "Clamp",
    "Context",
    "Edit",
    "Knockout",
    "Mean",
    "Noise",
    "Patch",
    "Project",
    "Replace",
    "Scale",
    "Shuffle",
    "Source",
    "Zero",
    "add",
    "apply",
    "as_edits",
    "clamp",
    "edit",
    "knockout",
    "mean",
    "noise",
    "patch",
    "project",
    "replace",
    "scale",
    "shuffle",
    "zero",
]
