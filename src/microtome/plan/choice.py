"""Which engine takes a question's cells, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from microtome.errors import SweepError, there_are
from microtome.language.operations import Operation

GRADIENTS = "gradients"
"""What takes the cells of an approximation: no engine that can be asked for by itself."""

ENGINES = ("auto", "walk", "reference")

WALK = "one pass through the layers for all cells of a prompt"
WHOLE = (
    "in an encoder every position sees the edited one, so no position before it stays as it was, "
    "and a cell takes all positions with it from the first layer that it edits"
)
"""What the walk does where it cannot reuse the keys and values before an edit, and why."""


@dataclass(frozen=True)
class Choice:
    """The engine that takes a sweep's cells, and the reason in words."""

    engine: str
    why: str


def choose(
    engine: str, edits: Sequence[Operation], causal: bool = True, whole: str | None = None
) -> Choice:
    """The engine for these edits, in a decoder or in an encoder.

    ``whole`` says why the model can only be run as it is, where that is so.

    Raises:
        SweepError: the engine does not exist, or it is the walk and cannot take them.
    """
    if engine not in ENGINES:
        raise SweepError(f"engine={engine!r} does not exist; {there_are(engine, ENGINES)}")
    if engine == "reference":
        return Choice("reference", "as asked: one full forward pass per cell")
    if whole is not None and engine == "walk":
        raise SweepError(
            f"The walk runs a model's parts by themselves, and {whole}. Use engine='reference', or "
            "take off what is there."
        )
    if whole is not None:
        return Choice("reference", f"one full forward pass per cell, since {whole}")
    for edit in edits:
        why = unwalkable(edit)
        if why is not None and engine == "walk":
            raise SweepError(f"The walk cannot take '{edit}': {why}. Use engine='reference'.")
        if why is not None:
            return Choice("reference", f"one full forward pass per cell, since {why}")
    return Choice("walk", WALK if causal else f"{WALK}; {WHOLE}")


def unwalkable(edit: Operation) -> str | None:
    """Why an edit has to go to the reference path; None where it can walk."""
    if edit.address.site.name == "logits":
        return "it edits the output itself, after the last layer"
    if not edit.rowwise:
        return "it is a function of the user's own, which might look across cells"
    return None
