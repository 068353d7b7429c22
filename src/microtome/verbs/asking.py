"""From what a user gives to a question."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from microtome.edits import Edit, as_edits
from microtome.errors import MetricError
from microtome.model.loaded import Loaded
from microtome.model.rotary import turned
from microtome.plan.legs import legs_of
from microtome.plan.question import Question, ask
from microtome.prompts.prompts import Given, listed
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
    corruption: Sequence[Sequence[Edit]] = (),
    window: int = 1,
) -> Question:
    """The question that a sweep's arguments ask, resolved against a model.

    Not ``to_run``, it is there to be planned: prompts need no targets. ``corruption`` is of each
    prompt, and ``window`` of layers, see `Question`.
    """
    encoded = model.encode(prompts)
    others = listed(reference)
    references = model.encode(others) if others else encoded
    dims = model.anatomy.dims
    asked = readings(metrics)
    edits = as_edits(edit)
    question = ask(dims, encoded, edits, asked, over, references, to_run, corruption, window)
    _check_turned(model, question)
    return question


def _check_turned(model: Loaded, question: Question) -> None:
    """Raise where tokens that are forced behind a text change how the text itself is read.

    Then the first of them has another probability there than behind the text alone.
    """
    config = model.hf.config.get_text_config()
    for leg in legs_of(question):
        for one in leg.encoded:
            text, whole = len(one.tokens), len(one.tokens.read)
            if turned(config, text) != turned(config, whole):
                raise MetricError(
                    f"{one.prompt.text!r} is {text} tokens, and a target or contrast of several "
                    f"is read in a pass over {whole}, in which this model's rotary embedding "
                    "turns the text itself differently: what is predicted there is not what the "
                    "text alone predicts. Give targets of one token, or a shorter text."
                )
