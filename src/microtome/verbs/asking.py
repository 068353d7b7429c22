"""From what a user gives to a question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from microtome.edits import Edit, as_edits
from microtome.model.loaded import Loaded
from microtome.plan.question import Question, ask
from microtome.prompts.prompts import Given
from microtome.readings.registry import readings


def asking(
    model: Loaded,
    prompts: Given | Iterable[Given],
    edit: Edit | str | Iterable[Edit | str],
    *,
    metrics: str | Iterable[str],
    over: Mapping[str, Sequence[Any]] | None = None,
    reference: Iterable[Given] = (),
    to_run: bool = True,
) -> Question:
    """The question that a sweep's arguments ask, resolved against a model.

    Not ``to_run``, it is there to be planned: prompts need no targets.
    """
    encoded = model.encode(prompts)
    others = list(reference)
    references = model.encode(others) if others else encoded
    dims = model.anatomy.dims
    asked = readings(metrics)
    return ask(dims, encoded, as_edits(edit), asked, over, references, to_run)
