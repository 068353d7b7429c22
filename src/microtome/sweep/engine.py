"""The choice of an engine: which path computes the cells of a plan, and why.

There is one path today, `sweep.reference`. The one-pass walk will be the second: it takes the same
`Plan`, gives the same `Measured`, runs the same edits on batches of many cells, and is held
against the reference path cell by cell.
"""

from __future__ import annotations

from dataclasses import dataclass

from microtome.errors import SweepError, listing

ENGINES = ("auto", "walk", "reference")


@dataclass(frozen=True)
class Choice:
    """The path that was chosen, and the reason in words."""

    engine: str
    why: str


def choose(engine: str, memory: int | None = None) -> Choice:
    """The path for a sweep.

    Raises:
        SweepError: the engine does not exist, or is not available yet.
    """
    if engine not in ENGINES:
        raise SweepError(f"engine={engine!r} does not exist; there are: {listing(ENGINES)}.")
    if engine == "walk":
        raise SweepError(
            "The one-pass walk is not available yet: use engine='reference', or 'auto', which "
            "will take the walk once it is there."
        )
    if memory is not None:
        raise SweepError(
            "memory= is the budget of the one-pass walk, which is not available yet; the reference "
            "path runs one cell at a time and needs little more than the model."
        )
    return Choice("reference", "one full forward pass per cell; the only path there is yet")
