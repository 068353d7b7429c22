"""The runs of a question whose prompts are corrupted: the visits that do it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from microtome.edits.application import corrupted
from microtome.edits.sources import Sources
from microtome.model.loaded import Loaded
from microtome.passes.hooks import Visit
from microtome.plan.question import Question


def corrupting(
    model: Loaded, question: Question, rows: Mapping[int, Iterable[int]], sources: Sources
) -> Iterator[Visit]:
    """What corrupts the runs of some prompts; nothing where runs are clean.

    Args:
        model: the model.
        question: what is asked.
        rows: of each prompt, by number, in a batch of whole texts.
        sources: of the question's edits.
    """
    if not question.corruption:
        return
    for prompt, own in rows.items():
        edits = question.corruption[prompt]
        yield from corrupted(model.anatomy, question.encoded[prompt], edits, sources, own)
